"""Back-pressure: stop polling while there is no room for a batch, and pause partitions when that lasts.

A group member must keep polling (max.poll.interval.ms), and a pause costs about a second a cycle. So a short stall
holds the consumer; a long one pauses partitions and keeps polling.
"""

import time
from collections.abc import Iterable

from confluent_kafka import Consumer, TopicPartition

from tagbus.stream import telemetry
from tagbus.stream.bus.consume.batching import BatchLimits, Buffers
from tagbus.stream.bus.in_flight import InFlight
from tagbus.stream.config import Settings
from tagbus.stream.kafka.message import Partition

# How long the consumer is held while there is no room at all, and while only some partitions have none: the others wait
# for those, so they are paused earlier.
HOLD_SECONDS = 2.0
YIELD_SECONDS = 0.5


class BackPressure:
    """Which partitions are paused. Belongs to the poll thread."""

    def __init__(self, settings: Settings, consumer: Consumer, in_flight: InFlight, limits: BatchLimits) -> None:
        """`limits`: of a batch."""
        self._consumer = consumer
        self._in_flight = in_flight
        self._limits = limits
        # The limit of bytes in all buffers.
        self._size = settings.batch.in_flight_bytes
        # A consumer that is held for max.poll.interval.ms is removed from the group.
        self._hold = min(HOLD_SECONDS, settings.kafka.poll_seconds / 4)
        self._yield = min(YIELD_SECONDS, self._hold)

    def hold(self, buffers: Buffers) -> bool:
        """Whether to skip polling for now. Pauses the partitions that were held for too long."""
        now = time.monotonic()
        swamped = self._swamped(buffers)
        limit = self._hold if swamped or self._in_flight.crowded() else self._yield
        held = {
            partition: buffer.blocked
            for partition, buffer in buffers.items()
            if buffer.blocked is not None and not buffer.paused and (swamped or buffer.full(self._limits))
        }
        if not held:
            return False
        late = [partition for partition, since in held.items() if now - since >= limit]
        if late:
            self.pause(buffers if swamped else late, buffers)
        return not late

    def pause(self, partitions: Iterable[Partition], buffers: Buffers) -> None:
        """Fetch no more of these partitions until `resume`."""
        fresh = [partition for partition in partitions if partition not in buffers or not buffers[partition].paused]
        if not fresh:
            return
        self._consumer.pause([TopicPartition(*partition) for partition in fresh])
        for partition in fresh:
            if partition in buffers:
                buffers[partition].paused = True
        _report(buffers)

    def resume(self, buffers: Buffers) -> None:
        """Fetch paused partitions that have room again."""
        paused = [partition for partition, buffer in buffers.items() if buffer.paused and not buffer.ended]
        if not paused or self._swamped(buffers):
            return
        partitions = [partition for partition in paused if not buffers[partition].full(self._limits)]
        if not partitions:
            return
        self._consumer.resume([TopicPartition(*partition) for partition in partitions])
        for partition in partitions:
            buffers[partition].paused = False
        _report(buffers)

    def forget(self, gone: Buffers, buffers: Buffers) -> None:
        """Resume revoked partitions: in librdkafka a pause outlives the assignment."""
        paused = [TopicPartition(*partition) for partition, buffer in gone.items() if buffer.paused]
        if paused:
            self._consumer.resume(paused)
        _report(buffers)

    def _swamped(self, buffers: Buffers) -> bool:
        return sum(buffer.size for buffer in buffers.values()) >= self._size


def _report(buffers: Buffers) -> None:
    telemetry.PAUSED.set(sum(buffer.paused for buffer in buffers.values()))
