"""What goes under way: batches that are due and find room, or one record alone where a partition is careful."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from tagbus.stream.bus.consume.buffer import Buffer, Cut
from tagbus.stream.bus.consume.crash_loop import Starts
from tagbus.stream.bus.consume.span import Pace
from tagbus.stream.bus.in_flight import Batch, InFlight, InFlightBatch
from tagbus.stream.bus.process.version_topic import VersionTopic
from tagbus.stream.config import BatchSettings
from tagbus.stream.kafka.message import Partition


class Cutter:
    """From buffers to flights. Belongs to the poll thread."""

    def __init__(
        self,
        settings: BatchSettings,
        in_flight: InFlight,
        starts: Starts,
        order: VersionTopic,
        pace: Pace,
        start: Callable[[InFlightBatch], None],
    ) -> None:
        """`start` hands a batch to the tagger and returns at once."""
        self._in_flight = in_flight
        self._starts = starts
        self._order = order
        self._pace = pace
        self._start = start
        # No batch may take more than its share of the bytes, so that a partition cannot take all.
        share = max(1, settings.in_flight_bytes // (2 * settings.in_flight))
        self.limit = Cut(pace.most(settings.contents), share, settings.seconds)

    def cut(self, buffers: Mapping[Partition, Buffer]) -> None:
        """Put under way what is due and finds room, the longest waiting first."""
        now = time.monotonic()
        self._count(buffers)
        if self._starts.careful and self._one(buffers, now):
            return
        for partition, buffer in sorted(buffers.items(), key=lambda item: item[1].oldest):
            while buffer.due(self.limit, now):
                if not self._may(partition, buffer, now):
                    buffer.blocked = buffer.blocked or now
                    break
                self._start(self._enter(buffer.take(partition, self.limit, now), now))

    def _may(self, partition: Partition, buffer: Buffer, now: float) -> bool:
        return (
            self._in_flight.room(partition, min(buffer.size, self.limit.size))
            and self._starts.counted(partition)
            and self._order.ready(partition)
            and self._pace.free(now)
        )

    def _enter(self, batch: Batch, now: float) -> InFlightBatch:
        self._pace.spend(len(batch.sources), now)
        return self._in_flight.start(batch)

    def _count(self, buffers: Mapping[Partition, Buffer]) -> None:
        if self._starts.fresh:
            heads = {partition: buffer.head for partition, buffer in buffers.items() if buffer.records}
            self._starts.count(
                {partition: head for partition, head in heads.items() if partition in self._starts.fresh}
            )

    def _one(self, buffers: Mapping[Partition, Buffer], now: float) -> bool:
        """A record of a careful partition goes alone: nothing else is under way in this process, or the end of the
        process could be another content's fault. Returns whether the others wait for it."""
        if self._in_flight.busy():
            due = any(buffers[partition].records for partition in self._starts.careful)
            waiting = due or self._starts.under_way is not None
        else:
            self._starts.settle()
            partitions = [
                partition
                for partition in self._starts.careful
                if buffers[partition].records and self._order.ready(partition)
            ]
            waiting = bool(partitions)
            if partitions and self._pace.free(now):
                partition = min(partitions, key=lambda partition: buffers[partition].oldest)
                self._alone(partition, buffers[partition], now)
        if waiting:
            for buffer in buffers.values():
                if buffer.due(self.limit, now):
                    buffer.blocked = buffer.blocked or now
        return waiting

    def _alone(self, partition: Partition, buffer: Buffer, now: float) -> None:
        if not self._starts.alone(partition, buffer.head):
            return
        entry = self._enter(buffer.take(partition, replace(self.limit, contents=1), now), now)
        outcome = self._starts.dead(entry.batch.sources[0])
        if outcome is None:
            self._start(entry)
        else:
            self._in_flight.complete(entry, [outcome])
