"""Offsets that follow the results, at least once: they hold up no batch, and all of them are committed."""

import threading
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import KafkaError

from tagbus.stream.bus.publish.record_producer import RecordProducer
from tagbus.stream.config import Settings
from tagbus.stream.kafka import clients
from tagbus.stream.local.mock import MockCluster
from tests.bus.harness import at_least_once, event, events, running, until_all_out
from tests.bus.taggers import Gated
from tests.support import consume_all, produce, wait_until

COUNT = 50
# The protocol's number of the request.
PRODUCE = 0


def committed(address: str, given: Settings) -> int:
    """How many records of the topic content are committed."""
    reader = confluent_kafka.Consumer({"bootstrap.servers": address, "group.id": given.kafka.group})
    partitions = reader.list_topics("content", 10).topics["content"].partitions
    found = reader.committed([confluent_kafka.TopicPartition("content", number) for number in partitions], timeout=10)
    reader.close()
    return sum(max(0, one.offset) for one in found)


Held = tuple[threading.Event, threading.Event]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    """Commits of offsets are held: set when one is asked for, and to be set to let them through."""
    asked, answer = threading.Event(), threading.Event()

    class Slow(confluent_kafka.Consumer):
        def commit(self, *arguments: Any, **named: Any) -> Any:
            # The first commits record that the worker has started (crash_loop.py).
            if any(offset.offset > 0 for offset in named["offsets"]):
                asked.set()
                assert answer.wait(120)
            return super().commit(*arguments, **named)

    monkeypatch.setattr(clients, "Consumer", Slow)
    return asked, answer


def test_results_are_sent_while_earlier_offsets_are_committed(
    mock_kafka: MockCluster, mock_topics: dict[str, str], held: Held
) -> None:
    asked, answer = held
    produce(mock_kafka.address, "content", events(COUNT), 0)
    given = at_least_once(mock_kafka, mock_topics, batch={"contents": 10, "seconds": 600, "in_flight": 8})
    tagger = Gated(lambda _: True)
    with running(given, tagger):
        wait_until(lambda: tagger.waiting == COUNT // 10, 120, "all batches in processing")
        tagger.open = True
        until_all_out(mock_kafka.address, {"tagged": "tagged", "dead_letters": "dead_letters"}, COUNT)
        wait_until(asked.is_set, 120)
        answer.set()
        wait_until(lambda: committed(mock_kafka.address, given) == COUNT, 120)


def test_what_is_sent_is_committed_before_its_partition_is_processed_again(
    mock_kafka: MockCluster, mock_topics: dict[str, str], held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = held
    refusals: list[RecordProducer] = []

    def sort_failures(records: RecordProducer, sort: Any = RecordProducer.sort_failures) -> None:
        refusals.append(records)
        sort(records)

    monkeypatch.setattr(RecordProducer, "sort_failures", sort_failures)
    # Given version 7 of a content, sent and not committed, and a content in processing
    produce(mock_kafka.address, "content", [(b"a", event("a", version=7), []), (b"b", event("b"), [])], 0)
    tagger = Gated(lambda content: content.id == "b")
    with running(at_least_once(mock_kafka, mock_topics, batch={"contents": 1}), tagger):
        wait_until(lambda: asked.is_set() and tagger.waiting, 120, "a commit, and a content in processing")
        # When the broker refuses its result, also alone, so that its partition is processed again
        mock_kafka.fail(PRODUCE, *[KafkaError.MSG_SIZE_TOO_LARGE] * 2)
        tagger.open = True
        wait_until(lambda: len(refusals) == 2, 120, "two refusals")
        answer.set()
        until_all_out(mock_kafka.address, mock_topics, 2)
        # Then version 7 is still known: a late version 3 is stale
        produce(mock_kafka.address, "content", [(b"a", event("a", version=3), [])], 0)
        until_all_out(mock_kafka.address, mock_topics, 3)
    letters = consume_all(mock_kafka.address, "dead_letters")
    assert [dict(letter.headers() or [])["tagbus.stage"] for letter in letters] == [b"publish", b"order"]
