"""The poll thread alone: its reports on brokers. Its handling of records is in test_worker.py."""

import struct
from collections.abc import Iterable, Iterator
from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from tagbus.stream.bus.consume.bounds import RangeBounds, ReadRange
from tagbus.stream.bus.consume.poller import STOOD_SECONDS, Poller
from tagbus.stream.bus.in_flight import InFlight
from tagbus.stream.bus.process.tag_processor import TagProcessor
from tagbus.stream.kafka import clients
from tagbus.stream.local.mock import MockCluster
from tests.bus.harness import Running, events, settings
from tests.bus.taggers import Trivial
from tests.support import produce


@pytest.fixture
def poller(mock_kafka: MockCluster, mock_topics: dict[str, str]) -> Iterator[Poller]:
    given = settings(mock_kafka.address, mock_topics)
    consumer = clients.group_member(given, lambda _: None)
    yield Poller(given, consumer, InFlight(1, 1000), TagProcessor(given, Trivial()), None, lambda _: None)
    consumer.close()


def test_brokers_count_as_up_until_reported_down(poller: Poller) -> None:
    assert poller.up_since is not None
    poller.broker_down()
    assert poller.up_since is None


def test_a_process_that_was_stopped_knows_nothing_of_the_time_before(poller: Poller) -> None:
    since = poller.up_since or 0.0
    # While it turns, it knows since when brokers answer
    poller.touch()
    assert poller.up_since == since
    # After a standstill it starts over
    poller.turned -= 2 * STOOD_SECONDS
    poller.touch()
    assert poller.up_since == poller.turned > since


class Later:
    """The consumer of a member that is two generations past its last callback."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def __getattr__(self, name: str) -> object:
        return getattr(self._consumer, name)

    def consumer_group_metadata(self) -> bytes:
        return struct.pack("=7si", b"CGMDv2:", 1) + b"group\0member\0\1"


def test_offsets_are_not_committed_in_a_generation_in_which_another_member_may_have_committed_more(
    mock_kafka: MockCluster, mock_topics: dict[str, str]
) -> None:
    given = settings(mock_kafka.address, mock_topics)
    consumer = clients.group_member(given, lambda _: None)
    later = cast(Consumer, Later(consumer))
    poller = Poller(given, later, InFlight(1, 1000), TagProcessor(given, Trivial()), None, lambda _: None)
    answer = poller.commit([TopicPartition(mock_topics["content"], 0, 1)])
    poller.touch()
    refused = answer.result(0)
    assert refused is not None
    assert refused.code() == KafkaError.ILLEGAL_GENERATION
    assert refused.retriable()
    consumer.close()


def test_a_backfill_commits_no_further_than_its_end_where_the_topic_goes_on(
    mock_kafka: MockCluster, mock_topics: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings(mock_kafka.address, mock_topics, kafka={"delivery": "at_least_once"})
    produce(mock_kafka.address, "content", events(40, "a"), 0)
    produce(mock_kafka.address, "content", events(150, "b"), 1)
    look = RangeBounds.look

    def then_more(bounds: RangeBounds, numbers: Iterable[int]) -> None:
        look(bounds, numbers)
        produce(mock_kafka.address, "content", events(5, "late"), 0)

    monkeypatch.setattr(RangeBounds, "look", then_more)
    # Given a partition that gets more after the backfill has asked for its end, and is done long before another
    run = Running(given, Trivial(), read_range=ReadRange("earliest", "end", rate=50))
    run.join()
    assert run.error is None
    # Then what came later is not committed past
    member = clients.group_member(given, lambda _: None)
    found = member.committed([TopicPartition("content", number) for number in (0, 1)], 10)
    member.close()
    assert [one.offset for one in found] == [40, 150]
