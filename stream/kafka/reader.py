"""Topics read in no group: to the ends that they have now, then on.

Whoever needs every partition reads like this: the memory, the releases, published versions, commands. The end of a
partition is known by `_PARTITION_EOF`, never by counting: transaction markers and compacted records count in the high
watermark and are never delivered.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Literal, Self

from confluent_kafka import KafkaError, Message, TopicPartition

from tagbus.stream.config import KafkaSettings
from tagbus.stream.errors import DependencyDown, TagbusError, TopicMissing
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.errors import NO_TOPIC, RAISED, classify, error_of
from tagbus.stream.kafka.logs import report
from tagbus.stream.kafka.message import Partition, offset_of, partition_of
from tagbus.stream.kafka.metadata import Watermarks, list_partitions, offset_at, watermarks

# Where a partition begins: its first record, its end, the first record at or after a time, or an offset for each
# partition (one that is not named begins at its first record).
Start = Literal["beginning", "end"] | datetime | Mapping[Partition, int]


@dataclass(frozen=True, slots=True)
class Gap:
    """An offset to read from that the broker does not have; `found` is what it has instead, in words."""

    partition: Partition
    offset: int
    found: str

    def __str__(self) -> str:
        return f"{self.partition[0]}:{self.partition[1]} has {self.found}, not {self.offset}"


@dataclass(slots=True)
class Positions:
    """How far partitions are read: the next offset of each, and the end that it had when it was assigned."""

    next: dict[Partition, int] = field(default_factory=dict)
    ends: dict[Partition, int] = field(default_factory=dict)

    def caught_up(self) -> bool:
        """Whether every partition is read to that end."""
        return all(self.next[partition] >= end for partition, end in self.ends.items())

    def remaining(self) -> int:
        """Offsets to go to those ends."""
        return sum(max(0, end - self.next[partition]) for partition, end in self.ends.items())

    def copy(self) -> "Positions":
        """The positions as they are now."""
        return Positions(dict(self.next), dict(self.ends))


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one read returned: records in the order of their partitions, and the positions after them."""

    messages: tuple[Message, ...]
    positions: Positions


class TopicReader:
    """Reads partitions that are assigned by hand; commits nothing. Belongs to one thread; a context manager."""

    def __init__(
        self,
        kafka: KafkaSettings,
        out_of_range: Callable[[Gap], TagbusError] | None = None,
        optional: Collection[str] = (),
    ) -> None:
        """`out_of_range` makes the error to raise where an offset is not on the broker; without it reading goes on at
        the first record. `optional`: topics that need not exist; they may come later.

        Raises UserError for a property that librdkafka does not take.
        """
        self._kafka = kafka
        self._out_of_range = out_of_range
        self._optional = optional
        self._consumer = clients.reader(kafka, "earliest" if out_of_range is None else "error")
        self._failure: TagbusError | None = None
        self.positions = Positions()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def discover(self, topics: Iterable[str], start: Start = "beginning") -> None:
        """Assign every partition of the topics that is not assigned yet: all of them first, later those that were
        added.

        Raises TopicMissing, UserError where a right is missing, DependencyDown where no broker answers, and
        `out_of_range`'s error for a start that is not on the broker.
        """
        fresh = [
            partition for topic in topics for partition in self._list(topic) if partition not in self.positions.next
        ]
        self.assign({partition: self._range(partition, start) for partition in fresh})

    def assign(self, ranges: Mapping[Partition, Watermarks]) -> None:
        """Read these partitions too, each from `low`; it is caught up at `high`."""
        if not ranges:
            return
        self._consumer.incremental_assign(
            [TopicPartition(*partition, marks.low) for partition, marks in ranges.items()]
        )
        for partition, marks in ranges.items():
            self.positions.next[partition] = marks.low
            self.positions.ends[partition] = marks.high

    def read(self, count: int, seconds: float, fill: float = 0.0) -> Chunk:
        """Up to `count` committed records: wait `seconds` for the first, then `fill` for the others.

        An error that ends the reading is raised by the next call, after the records that came with it: TopicMissing,
        UserError where a right is missing, Fatal, or `out_of_range`'s. What librdkafka recovers from is logged.
        """
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        records = []
        for message in self._consume(count, seconds, fill):
            error = message.error()
            if error is None:
                records.append(message)
                self.positions.next[partition_of(message)] = offset_of(message) + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                self.positions.next[partition_of(message)] = offset_of(message)
            else:
                self._on_error(error, message)
        return Chunk(tuple(records), self.positions.copy())

    def close(self) -> None:
        """Let go of the broker. What the client still has to say then concerns nobody."""
        with suppress(*RAISED):
            self._consumer.close()

    def _list(self, topic: str) -> list[Partition]:
        try:
            return list_partitions(self._consumer, self._kafka, topic)
        except TopicMissing:
            if topic in self._optional:
                return []
            raise

    def _range(self, partition: Partition, start: Start) -> Watermarks:
        marks = watermarks(self._consumer, self._kafka, partition)
        match start:
            case "beginning":
                return marks
            case "end":
                return Watermarks(marks.high, marks.high)
            case datetime():
                return Watermarks(offset_at(self._consumer, self._kafka, partition, start), marks.high)
        offset = start.get(partition, marks.low)
        if marks.low <= offset <= marks.high:
            return Watermarks(offset, marks.high)
        if self._out_of_range is None:
            return marks
        raise self._out_of_range(Gap(partition, offset, f"offsets {marks.low} to {marks.high}"))

    def _consume(self, count: int, seconds: float, fill: float) -> list[Message]:
        # `consume` waits until it has as many as it may return, so it waits for the first alone.
        try:
            first = self._consumer.consume(1, seconds)
            return first + self._consumer.consume(count - 1, fill) if first and count > 1 else first
        except RAISED as raised:
            error = error_of(raised)
            raise classify(error, self._kafka, "") or DependencyDown(f"reading failed: {error.str()}") from None

    def _on_error(self, error: KafkaError, message: Message) -> None:
        topic = message.topic() or ""
        if error.code() == KafkaError._AUTO_OFFSET_RESET and self._out_of_range is not None:
            gap = Gap(partition_of(message), offset_of(message), f"other offsets ({error.str()})")
            self._failure = self._out_of_range(gap)
        elif self._tolerated(error, topic) or (failure := classify(error, self._kafka, topic)) is None:
            report(error)
        else:
            self._failure = failure

    def _tolerated(self, error: KafkaError, topic: str) -> bool:
        # librdkafka looks for the coordinator of a group that nobody joins, and reports what came of it.
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return True
        return error.code() in NO_TOPIC and topic in self._optional
