"""What goes under way: batches that are due and find room, or one record alone where a partition is careful."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from tagbus.stream.bus.consume.buffer import BatchLimits, PartitionBuffer
from tagbus.stream.bus.consume.crash_loop import CrashLoopGuard
from tagbus.stream.bus.consume.span import RateLimit
from tagbus.stream.bus.in_flight import Batch, InFlight, InFlightBatch
from tagbus.stream.bus.process.version_topic import VersionTopic
from tagbus.stream.config import BatchSettings
from tagbus.stream.kafka.message import Partition


class Batcher:
    """From buffers to flights. Belongs to the poll thread."""

    def __init__(
        self,
        settings: BatchSettings,
        in_flight: InFlight,
        guard: CrashLoopGuard,
        versions: VersionTopic,
        rate_limit: RateLimit,
        start: Callable[[InFlightBatch], None],
    ) -> None:
        """`start` hands a batch to the tagger and returns at once."""
        self._in_flight = in_flight
        self._guard = guard
        self._versions = versions
        self._rate_limit = rate_limit
        self._start = start
        # No batch may take more than its share of the bytes, so that a partition cannot take all.
        share = max(1, settings.in_flight_bytes // (2 * settings.in_flight))
        self.limit = BatchLimits(rate_limit.most(settings.contents), share, settings.seconds)

    def cut(self, buffers: Mapping[Partition, PartitionBuffer]) -> None:
        """Put under way what is due and finds room, the longest waiting first."""
        now = time.monotonic()
        self._count(buffers)
        if self._guard.quarantined and self._one(buffers, now):
            return
        for partition, buffer in sorted(buffers.items(), key=lambda item: item[1].oldest):
            while buffer.due(self.limit, now):
                if not self._may(partition, buffer, now):
                    buffer.blocked = buffer.blocked or now
                    break
                self._start(self._enter(buffer.take(partition, self.limit, now), now))

    def _may(self, partition: Partition, buffer: PartitionBuffer, now: float) -> bool:
        return (
            self._in_flight.room(partition, min(buffer.size, self.limit.size))
            and self._guard.counted(partition)
            and self._versions.ready(partition)
            and self._rate_limit.free(now)
        )

    def _enter(self, batch: Batch, now: float) -> InFlightBatch:
        self._rate_limit.spend(len(batch.sources), now)
        return self._in_flight.start(batch)

    def _count(self, buffers: Mapping[Partition, PartitionBuffer]) -> None:
        if self._guard.fresh:
            heads = {partition: buffer.head for partition, buffer in buffers.items() if buffer.records}
            self._guard.count({partition: head for partition, head in heads.items() if partition in self._guard.fresh})

    def _one(self, buffers: Mapping[Partition, PartitionBuffer], now: float) -> bool:
        """A record of a careful partition goes alone: nothing else is under way in this process, or the end of the
        process could be another content's fault. Returns whether the others wait for it."""
        if self._in_flight.busy():
            due = any(buffers[partition].records for partition in self._guard.quarantined)
            waiting = due or self._guard.in_flight is not None
        else:
            self._guard.settle()
            partitions = [
                partition
                for partition in self._guard.quarantined
                if buffers[partition].records and self._versions.ready(partition)
            ]
            waiting = bool(partitions)
            if partitions and self._rate_limit.free(now):
                partition = min(partitions, key=lambda partition: buffers[partition].oldest)
                self._alone(partition, buffers[partition], now)
        if waiting:
            for buffer in buffers.values():
                if buffer.due(self.limit, now):
                    buffer.blocked = buffer.blocked or now
        return waiting

    def _alone(self, partition: Partition, buffer: PartitionBuffer, now: float) -> None:
        if not self._guard.alone(partition, buffer.head):
            return
        entry = self._enter(buffer.take(partition, replace(self.limit, contents=1), now), now)
        outcome = self._guard.dead(entry.batch.sources[0])
        if outcome is None:
            self._start(entry)
        else:
            self._in_flight.complete(entry, [outcome])
