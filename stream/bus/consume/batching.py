"""What has been read and is in no batch yet, and when a batch is cut from it and goes to the processor."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from tagbus.stream import telemetry
from tagbus.stream.bus.consume.crash_loop import CrashLoopGuard
from tagbus.stream.bus.in_flight import InFlight, InFlightBatch
from tagbus.stream.bus.processor import Batch, Processor, Source
from tagbus.stream.config import BatchSettings
from tagbus.stream.errors import Fatal
from tagbus.stream.kafka.message import Partition, record_of

# What a record costs in memory besides its value and key, in bytes.
RECORD_BYTES = 512


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large a batch may be, and how long it waits to fill, in seconds."""

    contents: int
    size: int
    seconds: float


@dataclass(slots=True)
class PartitionBuffer:
    """The records of one assigned partition. Times are of time.monotonic(). Belongs to the poll thread."""

    # The offset from which on nothing is read.
    end: int
    records: deque[tuple[Message, int]] = field(default_factory=deque)
    size: int = 0
    last: int = -1
    oldest: float = 0.0
    # Since when it could have been cut and there was no room.
    blocked: float | None = None
    paused: bool = False
    ended: bool = False

    def add(self, message: Message, read: float) -> int:
        """Take a record in; returns its bytes. Raises Fatal when its offset is not beyond the last one."""
        offset = message.offset() or 0
        if offset <= self.last:
            raise Fatal(f"{message.topic()}:{message.partition()} went back from offset {self.last} to {offset}")
        if offset >= self.end:
            self.ended = True
            return 0
        self.last = offset
        size = len(message.value() or b"") + len(message.key() or b"") + RECORD_BYTES
        if not self.records:
            self.oldest = read
        self.records.append((message, size))
        self.size += size
        return size

    @property
    def head(self) -> int:
        """The offset of the first record."""
        return self.records[0][0].offset() or 0

    @property
    def time(self) -> float | None:
        """When the first record was made, in Unix seconds."""
        return _timestamp(self.records[0][0]) if self.records else None

    def full(self, cut: BatchLimits) -> bool:
        """Whether a batch would hold no more."""
        return len(self.records) >= cut.contents or self.size >= cut.size

    def due(self, cut: BatchLimits, now: float) -> bool:
        """Whether to cut a batch."""
        return bool(self.records) and (self.full(cut) or now >= self.oldest + cut.seconds)

    def take(self, partition: Partition, cut: BatchLimits, now: float) -> Batch:
        """The next batch: as many records as the cut allows, and one at least. Its epoch is not known here."""
        sources: list[Source] = []
        size, read = 0, self.oldest
        while self.records and len(sources) < cut.contents and size < cut.size:
            message, bytes_ = self.records.popleft()
            sources.append(_source(partition, message))
            size += bytes_
        self.size -= size
        self.oldest = now
        self.blocked = None
        telemetry.BATCH_CONTENTS.observe(len(sources))
        return Batch(partition, 0, tuple(sources), size, read)


def _source(partition: Partition, message: Message) -> Source:
    offset = message.offset()
    if offset is None:
        raise Fatal(f"a record of {partition[0]}:{partition[1]} came without an offset")
    return Source(*partition, offset, record_of(message), _timestamp(message))


def _timestamp(message: Message) -> float | None:
    kind, milliseconds = message.timestamp()
    return None if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds / 1000


class RateLimit:
    """At most so many contents a second, without bursts of more than a second's worth."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._free = 0.0

    def most(self, contents: int) -> int:
        """The largest batch."""
        return contents if self._rate is None else max(1, min(contents, int(self._rate)))

    def free(self, now: float) -> bool:
        """Whether a batch may go."""
        return now >= self._free

    def spend(self, contents: int, now: float) -> None:
        """A batch went."""
        if self._rate is not None:
            self._free = max(self._free, now) + contents / self._rate


class Batcher:
    """From buffers to flights. Belongs to the poll thread."""

    def __init__(
        self,
        settings: BatchSettings,
        in_flight: InFlight,
        guard: CrashLoopGuard,
        processor: Processor,
        rate_limit: RateLimit,
        start: Callable[[InFlightBatch], None],
    ) -> None:
        """`start` hands a batch to the tagger and returns at once."""
        self._in_flight = in_flight
        self._guard = guard
        self._processor = processor
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
            and self._processor.ready(partition)
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
                if buffers[partition].records and self._processor.ready(partition)
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
