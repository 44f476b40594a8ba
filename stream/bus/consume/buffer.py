"""What has been read of a partition and is in no batch yet, and when a batch is cut from it."""

from collections import deque
from dataclasses import dataclass, field

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from tagbus.stream import telemetry
from tagbus.stream.bus.in_flight import Batch, Source
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
