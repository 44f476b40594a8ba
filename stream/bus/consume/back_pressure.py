"""Back-pressure: the consumer is left alone while nothing finds room, and what is held for longer is paused."""

import time
from collections.abc import Iterable, Mapping

from confluent_kafka import Consumer, TopicPartition

from tagbus.stream import telemetry
from tagbus.stream.bus.consume.batching import BatchLimits, PartitionBuffer
from tagbus.stream.bus.in_flight import InFlight
from tagbus.stream.config import Settings
from tagbus.stream.kafka.message import Partition

# How long the consumer is left alone while nothing finds room, and while only one partition finds none: then the
# others wait for it, so it is paused earlier.
HOLD_SECONDS = 2.0
YIELD_SECONDS = 0.5


class BackPressure:
    """Which partitions are paused. Belongs to the poll thread."""

    def __init__(self, settings: Settings, consumer: Consumer, in_flight: InFlight, limit: BatchLimits) -> None:
        """`limit`: a batch at most."""
        self._consumer = consumer
        self._in_flight = in_flight
        self._limit = limit
        # Bytes that may wait to be cut.
        self._size = settings.batch.in_flight_bytes
        # The consumer that is left alone for max.poll.interval.ms is out of the group.
        self._hold = min(HOLD_SECONDS, settings.kafka.poll_seconds / 4)
        self._yield = min(YIELD_SECONDS, self._hold)

    def hold(self, buffers: Mapping[Partition, PartitionBuffer]) -> bool:
        """Whether to leave the consumer alone for now. Pauses the partitions that have been held for too long."""
        now = time.monotonic()
        swamped = self._swamped(buffers)
        limit = self._hold if swamped or self._in_flight.crowded() else self._yield
        held = {
            partition: buffer.blocked
            for partition, buffer in buffers.items()
            if buffer.blocked is not None and not buffer.paused and (swamped or buffer.full(self._limit))
        }
        if not held:
            return False
        late = [partition for partition, since in held.items() if now - since >= limit]
        if late:
            self.pause(buffers if swamped else late, buffers)
        return not late

    def pause(self, partitions: Iterable[Partition], buffers: Mapping[Partition, PartitionBuffer]) -> None:
        """Read no more of these partitions until `resume`."""
        fresh = [partition for partition in partitions if partition not in buffers or not buffers[partition].paused]
        if not fresh:
            return
        self._consumer.pause([TopicPartition(*partition) for partition in fresh])
        for partition in fresh:
            if partition in buffers:
                buffers[partition].paused = True
        _report(buffers)

    def resume(self, buffers: Mapping[Partition, PartitionBuffer]) -> None:
        """Go on with what has room again."""
        paused = [partition for partition, buffer in buffers.items() if buffer.paused and not buffer.ended]
        if not paused or self._swamped(buffers):
            return
        partitions = [partition for partition in paused if not buffers[partition].full(self._limit)]
        if not partitions:
            return
        self._consumer.resume([TopicPartition(*partition) for partition in partitions])
        for partition in partitions:
            buffers[partition].paused = False
        _report(buffers)

    def forget(self, gone: Mapping[Partition, PartitionBuffer], buffers: Mapping[Partition, PartitionBuffer]) -> None:
        """Partitions that went: a pause would outlive the assignment in librdkafka, so it ends here."""
        paused = [TopicPartition(*partition) for partition, buffer in gone.items() if buffer.paused]
        if paused:
            self._consumer.resume(paused)
        _report(buffers)

    def _swamped(self, buffers: Mapping[Partition, PartitionBuffer]) -> bool:
        return sum(buffer.size for buffer in buffers.values()) >= self._size


def _report(buffers: Mapping[Partition, PartitionBuffer]) -> None:
    telemetry.PAUSED.set(sum(buffer.paused for buffer in buffers.values()))
