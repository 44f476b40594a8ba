"""The range of a backfill: its start, its end and its rate. The broker is librdkafka's mock cluster."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from hypothesis import given, strategies

from tagbus.stream.bus.consume.batching import RateLimit
from tagbus.stream.bus.consume.bounds import NO_END, RangeBounds, ReadRange
from tagbus.stream.errors import OffsetLost, UserError
from tagbus.stream.local.mock import MockCluster
from tests.bus.harness import Running, events, outcome, settings
from tests.bus.taggers import Trivial
from tests.support import produce, wait_until

A, B = ("content", 0), ("content", 1)
LATER = datetime.now(UTC) + timedelta(days=1)


class Topic:
    """A topic with ten records in its first partition and none in the second."""

    def __init__(self, cluster: MockCluster) -> None:
        self.address = cluster.address
        cluster.topic("content", 2)
        produce(cluster.address, "content", events(10), 0)
        self.consumer = Consumer({"bootstrap.servers": cluster.address, "group.id": "g"})

    def bounds(self, read_range: ReadRange | None, **kafka: object) -> RangeBounds:
        return RangeBounds(settings(self.address, kafka=kafka).kafka, "content", self.consumer, read_range)


@pytest.fixture
def topic(mock_kafka: MockCluster) -> Iterator[Topic]:
    made = Topic(mock_kafka)
    yield made
    made.consumer.close()


def test_a_service_begins_as_its_setting_says_and_has_no_end(topic: Topic) -> None:
    bounds = topic.bounds(None)
    bounds.look([0, 1])
    assert (bounds.start(A), bounds.end(A), bounds.bounded) == (OFFSET_BEGINNING, NO_END, False)


def test_a_group_without_any_offset_begins_at_the_end_where_its_setting_says_so(topic: Topic) -> None:
    bounds = topic.bounds(None, start="latest")
    bounds.look([0])
    assert bounds.start(A) == 10
    # This partition was added later, and so were all of its records.
    assert bounds.start(B) == OFFSET_BEGINNING
    # A group with an offset has begun: partitions that it does not know were added later too.
    topic.consumer.commit(offsets=[TopicPartition(*B, 0)], asynchronous=False)
    bounds = topic.bounds(None, start="latest")
    bounds.look([0, 1])
    assert bounds.start(A) == OFFSET_BEGINNING


def test_what_comes_after_the_worker_has_joined_is_not_left_out(topic: Topic) -> None:
    bounds = topic.bounds(None, start="latest")
    bounds.look([0, 1])
    # Given records that come before the partition is assigned, or into a topic that was created again
    produce(topic.address, "content", events(5, "later"), 0)
    assert bounds.start(A) == 10
    bounds.recreated()
    assert bounds.start(A) == OFFSET_BEGINNING


def test_a_topic_that_ends_before_its_latest_record_was_created_again(topic: Topic) -> None:
    bounds = topic.bounds(None, start="latest")
    bounds.look([0])
    with MockCluster() as cluster:
        cluster.topic("content", 1)
        produce(cluster.address, "content", events(3, "new"), 0)
        consumer = Consumer({"bootstrap.servers": cluster.address, "group.id": "g"})
        assert bounds.asked_through(consumer).start(A) == OFFSET_BEGINNING
        consumer.close()


def test_later_records_are_not_part_of_a_backfill(topic: Topic) -> None:
    bounds = topic.bounds(ReadRange("earliest", "end"))
    bounds.look([0])
    assert (bounds.end(A), bounds.end(B)) == (10, 0)
    assert topic.bounds(ReadRange("earliest", None)).end(B) == NO_END


def test_a_backfill_starts_at_named_offsets_and_ends_at_the_current_ends(topic: Topic) -> None:
    bounds = topic.bounds(ReadRange({0: 4}, "end"))
    bounds.look([0, 1])
    produce(topic.address, "content", events(5, "later"), 0)
    assert bounds.bounded
    assert (bounds.start(A), bounds.end(A)) == (4, 10)
    # A partition that is not named begins at its end.
    assert (bounds.start(B), bounds.end(B)) == (0, 0)


def test_a_time_after_the_last_record_is_the_end(topic: Topic) -> None:
    bounds = topic.bounds(ReadRange(LATER, LATER))
    bounds.look([0])
    assert (bounds.start(A), bounds.end(A)) == (10, 10)


def test_a_missing_offset_is_named(topic: Topic) -> None:
    with pytest.raises(UserError, match=r"offset 11 of content:0 is not on the broker, expected 0 to 10"):
        topic.bounds(ReadRange({0: 11})).start(A)


@pytest.mark.parametrize(("policy", "offset"), [("earliest", 0), ("latest", 10)])
def test_a_lost_offset_resumes_as_configured(topic: Topic, policy: str, offset: int) -> None:
    assert topic.bounds(None, out_of_range=policy).resume(A, 500) == offset


def test_a_lost_offset_stops_the_service(topic: Topic) -> None:
    with pytest.raises(OffsetLost, match=r"offset 500 of content:0 .* 0 to 10; kafka.out_of_range"):
        topic.bounds(None).resume(A, 500)


def test_an_offset_that_the_broker_has_after_all_is_resumed(topic: Topic) -> None:
    # As when another member commits the group's first offset after the client's request for it.
    assert [topic.bounds(None).resume(A, offset) for offset in (0, 4, 10)] == [0, 4, 10]


@pytest.mark.parametrize(("policy", "offset"), [("earliest", 0), ("latest", 10)])
def test_a_refused_offset_is_not_resumed_even_if_it_exists_now(topic: Topic, policy: str, offset: int) -> None:
    assert topic.bounds(None, out_of_range=policy).reset(A, 4) == offset


def test_a_missing_partition_is_named(topic: Topic) -> None:
    with pytest.raises(UserError, match=r"topic content has no partition 2, expected 0 to 1"):
        topic.bounds(ReadRange({0: 0, 2: 0})).look([0, 1])


def test_an_invalid_range_names_its_fault() -> None:
    with pytest.raises(UserError, match="rate: 0"):
        ReadRange(rate=0)
    with pytest.raises(UserError, match="until: 2026-01-01T00:00:00 has no time zone"):
        ReadRange(until=datetime(2026, 1, 1))


@given(strategies.floats(0.5, 1000), strategies.lists(strategies.integers(1, 50), min_size=1, max_size=50))
def test_a_pace_is_kept_over_any_run_of_batches(rate: float, batches: list[int]) -> None:
    rate_limit, now, sent = RateLimit(rate), 0.0, 0
    for most in batches:
        contents = rate_limit.most(most)
        while not rate_limit.free(now):
            now += 0.01
        # A batch is at most a second's worth, or one content.
        assert sent <= rate * now + max(1.0, rate)
        rate_limit.spend(contents, now)
        sent += contents


def test_no_rate_is_no_limit() -> None:
    rate_limit = RateLimit(None)
    rate_limit.spend(10**9, 0.0)
    assert rate_limit.free(0.0)
    assert rate_limit.most(128) == 128


def test_a_backfill_ends_when_all_is_committed(mock_kafka: MockCluster, mock_topics: dict[str, str]) -> None:
    # Given contents in two partitions, of which the second is read in part
    for partition in (0, 1):
        produce(mock_kafka.address, "content", events(50, f"p{partition}-"), partition)
    given = settings(mock_kafka.address, mock_topics, kafka={"delivery": "at_least_once"})
    # When a worker has an end, and more records arrive meanwhile
    run = Running(given, Trivial(0.3), read_range=ReadRange({0: 0, 1: 40}, "end"))
    wait_until(lambda: outcome(mock_kafka.address, mock_topics), 120)
    produce(mock_kafka.address, "content", events(50, "later"), 0)
    run.join()
    # Then it ends without an error, with the earlier records and no more
    assert run.error is None
    expected = {(0, offset) for offset in range(50)} | {(1, offset) for offset in range(40, 50)}
    assert set(outcome(mock_kafka.address, mock_topics)) == expected


def test_a_rate_is_kept(mock_kafka: MockCluster, mock_topics: dict[str, str]) -> None:
    produce(mock_kafka.address, "content", events(30), 0)
    tagger = Trivial()
    given = settings(mock_kafka.address, mock_topics, kafka={"delivery": "at_least_once"})
    run = Running(given, tagger, read_range=ReadRange("earliest", "end", rate=10))
    run.join()
    assert [len(batch) for batch in tagger.seen] == [10, 10, 10]
