"""Transaction markers at the end of a partition, committed past so that the lag of the group becomes 0.

A marker takes an offset and is never delivered; nor is a record of an aborted transaction. After the last content,
which is committed as its offset plus one, they would count as lag until a new record arrives.
"""

from collections.abc import Iterable
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tagbus.stream.bus.consume.batching import Buffers
from tagbus.stream.bus.consume.crash_loop import Commit
from tagbus.stream.bus.in_flight import InFlight
from tagbus.stream.config import KafkaSettings
from tagbus.stream.kafka.errors import error_of, map_kafka_errors
from tagbus.stream.kafka.logs import report
from tagbus.stream.kafka.message import Partition

# The timeout of the request for committed offsets, made once for a partition without a commit in this assignment.
ASK_SECONDS: Final = 1.0


class EndMarkers:
    """The offsets up to which partitions are read. Belongs to the poll thread."""

    def __init__(
        self, kafka: KafkaSettings, topic: str, consumer: Consumer, in_flight: InFlight, commit: Commit
    ) -> None:
        """`commit` commits offsets and waits for the answer."""
        self._kafka = kafka
        self._topic = topic
        self._consumer = consumer
        self._in_flight = in_flight
        self._commit = commit
        self._ends: dict[Partition, int] = {}

    def reached(self, partition: Partition, end: int) -> None:
        """Every record before this offset is delivered (_PARTITION_EOF)."""
        self._ends[partition] = end

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Drop revoked partitions."""
        for partition in partitions:
            self._ends.pop(partition, None)

    def pass_over(self, buffers: Buffers) -> None:
        """Commit the end of each partition whose earlier records are all committed. Failures are retried."""
        idle = {partition: end for partition, end in self._ends.items() if self._idle(partition, end, buffers)}
        if not idle:
            return
        try:
            committed = self._committed(idle)
        except KafkaException as exception:
            report(error_of(exception))
            return
        behind = [
            TopicPartition(*partition, idle[partition])
            for partition in idle
            if 0 <= committed[partition] < idle[partition]
        ]
        error = self._commit(behind) if behind else None
        if error is not None:
            report(error)
            return
        self.forget(idle)

    def _idle(self, partition: Partition, end: int, buffers: Buffers) -> bool:
        buffer = buffers.get(partition)
        return (
            buffer is not None and not buffer.records and buffer.last < end and self._in_flight.first(partition) is None
        )

    def _committed(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The committed offset of each partition, negative for none. Raises KafkaException when no broker answers."""
        known = {partition: self._in_flight.committed(partition) for partition in partitions}
        unknown = [TopicPartition(*partition) for partition, offset in known.items() if offset is None]
        if unknown:
            with map_kafka_errors(self._kafka, self._topic):
                answer = self._consumer.committed(unknown, ASK_SECONDS)
            known |= {(one.topic, one.partition): -1 if one.error else one.offset for one in answer}
        return {partition: -1 if offset is None else offset for partition, offset in known.items()}
