"""Records to batches: the buffer of each partition, and when a batch is cut from it and started.

A batch is a run of consecutive records of one partition, cut by count, by bytes and by time.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from confluent_kafka import Message, TopicPartition

from tagbus.stream import telemetry
from tagbus.stream.bus.consume.crash_loop import CrashLoopGuard
from tagbus.stream.bus.in_flight import InFlight, InFlightBatch
from tagbus.stream.bus.processor import Batch, Processor, Source
from tagbus.stream.config import BatchSettings
from tagbus.stream.errors import Fatal
from tagbus.stream.kafka.message import Partition, record_of, recorded
from tagbus.stream.telemetry import traces

# Memory for a record besides its value and key, in bytes.
RECORD_BYTES = 512


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The size limits of a batch, and how many seconds it waits to fill: `idle_seconds` while none is in flight."""

    contents: int
    size: int
    seconds: float
    idle_seconds: float


@dataclass(slots=True)
class PartitionBuffer:
    """The records of one assigned partition that are in no batch yet. Times are of time.monotonic(). Belongs to the
    poll thread."""

    # The next offset to read.
    end: int
    records: deque[tuple[Source, int]] = field(default_factory=deque)
    size: int = 0
    last: int = -1
    oldest: float = 0.0
    # Since when a due batch has waited for room.
    blocked: float | None = None
    paused: bool = False
    ended: bool = False

    def add(self, partition: Partition, message: Message, read: float) -> int:
        """Add a record; returns its size in bytes. Raises Fatal if its offset is not beyond the last one."""
        offset = message.offset()
        if offset is None:
            raise Fatal(f"a record of {partition[0]}:{partition[1]} came without an offset")
        if offset <= self.last:
            raise Fatal(f"{partition[0]}:{partition[1]} went back from offset {self.last} to {offset}")
        if offset >= self.end:
            self.ended = True
            return 0
        self.last = offset
        record = record_of(message)
        size = len(record.value or b"") + len(record.key or b"") + RECORD_BYTES
        if not self.records:
            self.oldest = read
        self.records.append((Source(*partition, offset, record, recorded(message)), size))
        self.size += size
        return size

    @property
    def head(self) -> int:
        """The offset of the first record."""
        return self.records[0][0].offset

    @property
    def time(self) -> float | None:
        """The timestamp of the first record, in Unix seconds."""
        return self.records[0][0].timestamp if self.records else None

    def full(self, limits: BatchLimits) -> bool:
        """Whether the buffer fills a batch."""
        return len(self.records) >= limits.contents or self.size >= limits.size

    def late(self, seconds: float, now: float) -> bool:
        """Whether a record has waited for this many seconds."""
        return bool(self.records) and now >= self.oldest + seconds

    def take(self, partition: Partition, limits: BatchLimits, now: float) -> Batch:
        """Cut a batch: as many records as the limits allow, and at least one. InFlight.start sets its epoch."""
        sources: list[Source] = []
        size, read = 0, self.oldest
        while self.records and len(sources) < limits.contents and size < limits.size:
            source, bytes_ = self.records.popleft()
            sources.append(source)
            size += bytes_
        self.size -= size
        self.oldest = now
        self.blocked = None
        telemetry.BATCH_CONTENTS.observe(len(sources))
        telemetry.RECEIVED.inc(len(sources))
        telemetry.RECEIVED_BYTES.inc(size - RECORD_BYTES * len(sources))
        trace = None
        if traces.active():
            offsets, headers = [one.offset for one in sources], [one.record.headers for one in sources]
            trace = traces.begin(*partition, offsets, headers, read)
        return Batch(partition, 0, tuple(sources), size, read, trace=trace)


Buffers = Mapping[Partition, PartitionBuffer]


class KnowsEnds(Protocol):
    """A consumer that knows the watermarks of its partitions."""

    def get_watermark_offsets(
        self,
        partition: TopicPartition,
        timeout: float = -1,
        cached: bool = False,  # noqa: FBT001, FBT002 - the client's own
    ) -> tuple[int, int]:
        """The low and the high watermark; negative where they are not known."""
        ...


def report_lag(in_flight: InFlight, buffers: Buffers, consumer: KnowsEnds) -> None:
    """Set the lag gauges: uncommitted records of each partition, and the age of the oldest one read; 0 if all are
    committed. The ends are those of the last fetch: no request is made."""
    now = time.time()
    for partition, buffer in buffers.items():
        entry = in_flight.first(partition)
        made = buffer.time if entry is None else entry.batch.sources[0].timestamp
        age = 0.0 if made is None else max(0.0, now - made)
        telemetry.OLDEST_UNCOMMITTED.labels(partition=str(partition[1])).set(age)
        if entry is not None:
            next_ = entry.batch.sources[0].offset
        else:
            next_ = buffer.head if buffer.records else max(buffer.last + 1, in_flight.committed(partition) or 0)
        _, end = consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        if next_ > 0 or entry is not None or buffer.records:
            telemetry.LAG.labels(partition=str(partition[1])).set(max(0, end - next_))


def forget_lag(partitions: Iterable[Partition]) -> None:
    """Stop reporting partitions that were revoked: another worker reports them now."""
    for _, number in partitions:
        for gauge in (telemetry.OLDEST_UNCOMMITTED, telemetry.LAG):
            gauge.remove(str(number))


class RateLimit:
    """At most `rate` contents a second, without bursts of more than a second's worth."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._free = 0.0

    def most(self, contents: int) -> int:
        """The size of the largest batch."""
        return contents if self._rate is None else max(1, min(contents, int(self._rate)))

    def free(self, now: float) -> bool:
        """Whether a batch may start."""
        return now >= self._free

    def spend(self, contents: int, now: float) -> None:
        """A batch has started."""
        if self._rate is not None:
            self._free = max(self._free, now) + contents / self._rate


class Batcher:
    """Cuts batches from buffers and starts them. Belongs to the poll thread."""

    def __init__(
        self,
        settings: BatchSettings,
        in_flight: InFlight,
        guard: CrashLoopGuard,
        processor: Processor,
        rate_limit: RateLimit,
        start: Callable[[InFlightBatch], None],
    ) -> None:
        """`start` hands a batch to the processor and returns immediately."""
        self._in_flight = in_flight
        self._guard = guard
        self._processor = processor
        self._rate_limit = rate_limit
        self._start = start
        # A batch takes at most a share of the bytes, so that one partition cannot take all.
        share = max(1, settings.in_flight_bytes // (2 * settings.in_flight))
        idle = min(settings.idle_seconds, settings.seconds)
        self.limits = BatchLimits(rate_limit.most(settings.contents), share, settings.seconds, idle)
        # Whether all arrived records are read: while there are more, a batch fills without waiting.
        self.caught_up = False

    def cut(self, buffers: Buffers) -> None:
        """Start the due batches that there is room for, the longest waiting first."""
        now = time.monotonic()
        self._count_start(buffers)
        if self._guard.quarantined and self._cut_quarantined(buffers, now):
            return
        # Where one is late all are cut, so that one transaction publishes them: cut at their own times, the batches of
        # four partitions take four transactions, which wait for each other.
        late = self._late(buffers, now)
        for partition, buffer in sorted(buffers.items(), key=lambda item: item[1].oldest):
            while buffer.full(self.limits) or (late and buffer.records):
                if not self._may_start(partition, buffer, now):
                    buffer.blocked = buffer.blocked or now
                    break
                self._start(self._take_in(buffer.take(partition, self.limits, now), now))

    def until_due(self, buffers: Buffers) -> float:
        """Seconds until the next batch is due, of the buffers that hold records."""
        now, seconds = time.monotonic(), self._patience()
        waits = [
            0.02 if buffer.blocked is not None else buffer.oldest + seconds - now
            for buffer in buffers.values()
            if buffer.records
        ]
        return max(0.0, min(waits))

    def _late(self, buffers: Buffers, now: float) -> bool:
        seconds = self._patience()
        return any(buffer.late(seconds, now) for buffer in buffers.values())

    def _patience(self) -> float:
        """How long a batch waits to fill now. An idle worker gains nothing by waiting."""
        idle = self.caught_up and self._in_flight.idle()
        return self.limits.idle_seconds if idle else self.limits.seconds

    def _may_start(self, partition: Partition, buffer: PartitionBuffer, now: float) -> bool:
        return (
            self._in_flight.room(partition, min(buffer.size, self.limits.size))
            and self._guard.counted(partition)
            and self._processor.ready(partition)
            and self._rate_limit.free(now)
        )

    def _take_in(self, batch: Batch, now: float) -> InFlightBatch:
        self._rate_limit.spend(len(batch.sources), now)
        return self._in_flight.start(batch)

    def _count_start(self, buffers: Buffers) -> None:
        if self._guard.fresh:
            oldest = {partition: buffer.head for partition, buffer in buffers.items() if buffer.records}
            self._guard.count({partition: head for partition, head in oldest.items() if partition in self._guard.fresh})

    def _cut_quarantined(self, buffers: Buffers, now: float) -> bool:
        """Start one record of a quarantined partition alone: with anything else in flight in this process, another
        content might be the one that ends it. Returns whether the other partitions must wait."""
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
                self._start_alone(partition, buffers[partition], now)
        if waiting:
            for buffer in buffers.values():
                if buffer.full(self.limits) or buffer.late(self.limits.seconds, now):
                    buffer.blocked = buffer.blocked or now
        return waiting

    def _start_alone(self, partition: Partition, buffer: PartitionBuffer, now: float) -> None:
        if not self._guard.mark(partition, buffer.head):
            return
        entry = self._take_in(buffer.take(partition, replace(self.limits, contents=1), now), now)
        outcome = self._guard.dead_letter_for(entry.batch.sources[0])
        if outcome is None:
            self._start(entry)
        else:
            self._in_flight.complete(entry, [outcome])
