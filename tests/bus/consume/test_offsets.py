"""Partitions that the client does not fetch, or whose topic is new, are fetched again. The broker is librdkafka's mock
cluster; topics that are created again on Apache Kafka are in tests/kafka/test_recreated.py."""

from collections import deque
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, TopicPartition

from tagbus.stream.bus.consume import silence
from tagbus.stream.bus.consume.batching import PartitionBuffer
from tagbus.stream.bus.consume.bounds import NO_END, RangeBounds
from tagbus.stream.bus.consume.offsets import OffsetResets
from tagbus.stream.bus.in_flight import InFlight
from tagbus.stream.bus.processor import Batch, Source
from tagbus.stream.contract.codec import Record
from tagbus.stream.errors import TopicRecreated
from tagbus.stream.kafka.message import Partition
from tagbus.stream.local.mock import MockCluster
from tests.bus.harness import events, settings
from tests.support import produce, wait_until

A, B = ("content", 0), ("content", 1)


class Reading:
    """One partition with ten records, read by a client that does not report ends. Silence counts at once."""

    def __init__(self, cluster: MockCluster) -> None:
        cluster.topic("content", 1)
        produce(cluster.address, "content", events(10), 0)
        self.consumer = Consumer({"bootstrap.servers": cluster.address, "group.id": "g"})
        bounds = RangeBounds(settings(cluster.address).kafka, "content", self.consumer, None)
        self.in_flight = InFlight(1, 1)
        self.committed: list[TopicPartition] = []
        self.resets = OffsetResets(self.consumer, bounds, self.in_flight, self.commit, lambda _: None)
        self.buffers: dict[Partition, PartitionBuffer] = {A: PartitionBuffer(NO_END)}

    def commit(self, offsets: list[TopicPartition]) -> None:
        self.committed += offsets

    def assigned(self, offset: int) -> None:
        self.consumer.incremental_assign([TopicPartition(*A, offset)])
        self.resets.assigned([A])

    def silent(self) -> None:
        for _ in range(2):
            self.resets.listen([], self.buffers, drained=True)

    def read(self) -> int | None:
        """The offset of the next record, which is in the buffer until it is published, at once."""
        (message,) = wait_until(lambda: self.consumer.consume(1, 0.1), 120, "a record")
        self.resets.listen([message], self.buffers, drained=True)
        self.buffers[A].add(A, message, 0.0)
        self.buffers[A].records.clear()
        return message.offset()


@pytest.fixture
def reading(mock_kafka: MockCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reading]:
    monkeypatch.setattr(silence, "SILENT_SECONDS", -1.0)
    made = Reading(mock_kafka)
    yield made
    made.consumer.close()


def test_a_silent_partition_is_fetched_again(reading: Reading) -> None:
    # Given one that yields neither a record nor its end
    reading.assigned(10)
    # When nothing arrives for some time, then it starts at its group's position, which has no offset
    reading.silent()
    reading.resets.serve(reading.buffers)
    assert reading.read() == 0


def test_a_silent_partition_whose_records_arrive_before_its_reset_is_read_on(reading: Reading) -> None:
    """No broker refused its position, so it is not a lost offset."""
    reading.assigned(0)
    reading.silent()
    assert reading.read() == 0
    reading.resets.serve(reading.buffers)
    assert reading.read() == 1


def test_a_partition_of_a_new_topic_is_fetched_again_from_where_it_is(reading: Reading) -> None:
    reading.assigned(3)
    assert reading.read() == 3
    # Given records that the client has, and has not returned
    reading.resets.recreated(reading.buffers)
    reading.resets.serve(reading.buffers)
    assert [reading.read() for _ in range(6)] == [4, 5, 6, 7, 8, 9]


def test_a_partition_of_a_new_topic_is_fetched_again_once_its_fetch_is_resumed(reading: Reading) -> None:
    reading.assigned(3)
    assert reading.read() == 3
    reading.consumer.pause([TopicPartition(*A)])
    reading.buffers[A].paused = True
    reading.resets.recreated(reading.buffers)
    reading.resets.serve(reading.buffers)
    # Then what is paused stays so
    assert reading.consumer.consume(1, 1.0) == []
    reading.consumer.resume([TopicPartition(*A)])
    reading.buffers[A].paused = False
    reading.resets.serve(reading.buffers)
    assert reading.read() == 4


def test_a_client_that_is_silent_about_a_new_topic_is_left_once_all_of_the_old_one_is_published(
    reading: Reading,
) -> None:
    # Given records of the old topic: one in flight, and one that waits, both of another partition than the silent one
    reading.assigned(10)
    reading.in_flight.assign([A, B])
    old = [Source(*B, offset, Record(None, b"")) for offset in (7, 8)]
    entry = reading.in_flight.start(Batch(B, 0, (old[0],), 1, 0.0))
    waiting = reading.buffers[B] = PartitionBuffer(NO_END, deque([(old[1], 1)]), last=8, paused=True)
    reading.resets.recreated(reading.buffers)

    def serve() -> None:
        reading.silent()
        # No pause between two tries.
        reading.resets._next_try = 0.0
        reading.resets.serve(reading.buffers)

    # Then they are published first
    serve()
    reading.in_flight.done(entry)
    serve()
    waiting.records.clear()
    assert reading.committed == []
    # And records of the new topic are not waited for: the next owner reads them again
    reading.in_flight.start(Batch(B, 0, (Source(*B, 9, Record(None, b"")),), 1, 0.0))
    # Nor is one silence enough, in which the broker may have stood still
    serve()
    assert reading.committed == []
    with pytest.raises(TopicRecreated, match="receives nothing of its partition 0;"):
        serve()
    assert [(start.partition, start.offset) for start in reading.committed] == [(0, 0)]
