"""Counting starts without progress, and the record that is set aside. The broker is librdkafka's mock cluster."""

from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from hypothesis import given, strategies

from tagbus.stream.bus.consume.crash_loop import CrashLoopGuard, StartCount
from tagbus.stream.bus.processor import Source, WorkerTopics
from tagbus.stream.contract.codec import Record, read_dead_letter
from tagbus.stream.local.mock import MockCluster
from tests.bus.harness import settings

A, B = ("content", 0), ("content", 1)
TOPICS = WorkerTopics("content", ("tagged",), "content.dlq")
WINDOW = 6


class Group:
    """A group on the mock cluster, and any number of worker starts."""

    def __init__(self, address: str, consumer: Consumer) -> None:
        self.settings = settings(address, batch={"contents": 3, "in_flight": 2})
        self.consumer = consumer
        self.refused: KafkaError | None = None

    def commit(self, offsets: list[TopicPartition]) -> KafkaError | None:
        if self.refused is None:
            self.consumer.commit(offsets=offsets, asynchronous=False)
        return self.refused

    def mark(self, partition: tuple[str, int] = A) -> tuple[int, StartCount]:
        (found,) = self.consumer.committed([TopicPartition(*partition)], 10)
        return found.offset, StartCount.read(found.metadata)

    def start(self, offset: int = 5) -> CrashLoopGuard:
        starts = CrashLoopGuard(self.settings, TOPICS, self.consumer, self.commit)
        starts.assign([A])
        starts.count({A: offset})
        return starts


@pytest.fixture
def group(mock_kafka: MockCluster) -> Iterator[Group]:
    mock_kafka.topic("content", 2)
    consumer = Consumer({"bootstrap.servers": mock_kafka.address, "group.id": "g", "enable.auto.commit": False})
    yield Group(mock_kafka.address, consumer)
    consumer.close()


def source(offset: int) -> Source:
    return Source(*A, offset, Record(b"k", b"v"))


@given(strategies.builds(StartCount, strategies.integers(1, 2**40), strategies.none() | strategies.integers(0, 2**62)))
def test_a_mark_is_read_as_it_was_written(mark: StartCount) -> None:
    assert StartCount.read(str(mark)) == mark


@given(strategies.none() | strategies.text() | strategies.from_regex(r'\{"(starts|alone)": .{0,9}\}', fullmatch=True))
def test_metadata_of_others_is_no_mark(metadata: str | None) -> None:
    assert StartCount.read(metadata).starts >= 0


def test_no_starts_is_no_metadata() -> None:
    assert str(StartCount()) == ""
    assert (
        StartCount.read("") == StartCount.read('{"starts": true}') == StartCount.read('{"alone": "x"}') == StartCount()
    )


def test_each_start_without_progress_counts_one_more(group: Group) -> None:
    for number in (1, 2, 3):
        assert group.start().counted(A)
        assert group.mark() == (5, StartCount(number))


def test_progress_clears_the_count(group: Group) -> None:
    group.start()
    # A transaction's offsets carry no metadata.
    group.commit([TopicPartition(*A, 7)])
    group.start(7)
    assert group.mark() == (7, StartCount(1))


def test_nothing_is_begun_before_it_is_counted(group: Group) -> None:
    group.refused = KafkaError(KafkaError.REBALANCE_IN_PROGRESS)
    starts = group.start()
    assert not starts.counted(A)
    assert starts.fresh == {A}


def test_a_start_that_ends_in_order_without_progress_does_not_count(group: Group) -> None:
    group.start()
    starts = group.start()
    starts.revoke({A: None})
    assert group.mark() == (5, StartCount(1))


def test_a_start_in_a_topic_that_is_gone_is_not_taken_back(group: Group) -> None:
    """Its offset is one of other records now."""
    starts = group.start()
    group.commit([TopicPartition(*A, 0)])
    starts.recreated()
    starts.revoke({A: None})
    assert group.mark() == (0, StartCount())
    starts.assign([A])
    starts.count({A: 2})
    starts.revoke({A: None})
    assert group.mark() == (2, StartCount())


def test_a_start_that_got_on_is_not_taken_back(group: Group) -> None:
    starts = group.start()
    group.commit([TopicPartition(*A, 7)])
    starts.revoke({A: 7})
    assert group.mark() == (7, StartCount())


def test_a_partition_is_quarantined_from_the_start_that_may_be_the_last(group: Group) -> None:
    assert not group.start().quarantined
    assert not group.start().quarantined
    assert group.start().quarantined == {A}


def test_a_partition_is_quarantined_for_as_many_records_as_may_have_been_in_flight(group: Group) -> None:
    group.start()
    group.start()
    starts = group.start()
    for offset in range(5, 5 + WINDOW):
        assert starts.quarantined == {A}
        assert starts.mark(A, offset)
        assert group.mark() == (offset, StartCount(3 if offset == 5 else 2, offset))
        assert starts.in_flight == A
        starts.settle()
    assert starts.quarantined == set()


def test_a_record_that_was_alone_as_the_process_ended_is_dead(group: Group) -> None:
    for _ in range(2):
        group.start()
    third = group.start()
    assert third.mark(A, 5)
    assert third.dead_letter_for(source(5)) is None
    fourth = group.start()
    assert fourth.dead_letter_for(source(6)) is None
    outcome = fourth.dead_letter_for(source(5))
    assert outcome is not None
    reason = read_dead_letter(outcome.outgoing[0].headers)
    assert (reason.exception, reason.stage, reason.attempts) == ("Untaggable", "tag", 3)
    assert "ended 3 times" in reason.message


def test_a_kill_in_quarantine_that_is_no_contents_fault_sets_nothing_aside(group: Group) -> None:
    for _ in range(2):
        group.start()
    killed = group.start()
    for offset in (5, 6):
        assert killed.mark(A, offset)
    again = group.start(6)
    assert again.quarantined == {A}
    assert again.dead_letter_for(source(6)) is None

    assert again.mark(A, 6)

    assert group.start(6).dead_letter_for(source(6)) is not None


def test_a_revoked_partition_is_counted_again(group: Group) -> None:
    group.start()
    group.start()
    starts = group.start()
    starts.mark(A, 5)
    starts.forget([A])
    assert not starts.counted(A)
    assert (starts.quarantined, starts.in_flight) == (set(), None)
