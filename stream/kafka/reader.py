"""Read topics without a consumer group: to their current ends, then follow.

For readers that need every partition: the memory, the releases, published versions, commands. The end of a partition is
detected by `_PARTITION_EOF`, never by counting: transaction markers and compacted records count in the high watermark
and are never delivered.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Literal, Self

from confluent_kafka import KafkaError, Message, TopicPartition

from tagbus.stream.config import KafkaSettings
from tagbus.stream.errors import DependencyDown, TagbusError, TopicMissing, TopicRecreated
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.errors import NO_TOPIC, RAISED, classify, error_of
from tagbus.stream.kafka.logs import report
from tagbus.stream.kafka.message import Partition, offset_of, partition_of
from tagbus.stream.kafka.metadata import Watermarks, list_partitions, offset_at, watermarks

# The start of a partition: its first record, its end, the first record at or after a time, or an offset per partition
# (those not listed start at their first record).
Start = Literal["beginning", "end"] | datetime | Mapping[Partition, int]


@dataclass(frozen=True, slots=True)
class Gap:
    """An offset that the broker does not have; `found` describes what it has instead."""

    partition: Partition
    offset: int
    found: str

    def __str__(self) -> str:
        return f"{self.partition[0]}:{self.partition[1]} has {self.found}, not {self.offset}"


@dataclass(slots=True)
class Positions:
    """Read progress: the next offset of each partition, and its end offset at assignment.

    `at_end`: partitions without a record read since the broker reported their end.
    """

    next: dict[Partition, int] = field(default_factory=dict)
    ends: dict[Partition, int] = field(default_factory=dict)
    at_end: set[Partition] = field(default_factory=set)

    def caught_up(self) -> bool:
        """Whether every partition is read to its end offset at assignment."""
        return all(self.next[partition] >= end for partition, end in self.ends.items())

    def remaining(self) -> int:
        """Offsets left to read up to those ends."""
        return sum(max(0, end - self.next[partition]) for partition, end in self.ends.items())

    def copy(self) -> "Positions":
        """A snapshot of the positions."""
        return Positions(dict(self.next), dict(self.ends), set(self.at_end))


@dataclass(frozen=True, slots=True)
class Chunk:
    """The result of one read: records in partition order, and the positions after them."""

    messages: tuple[Message, ...]
    positions: Positions


class TopicReader:
    """Reads manually assigned partitions; commits nothing. Not thread-safe; a context manager."""

    def __init__(
        self,
        kafka: KafkaSettings,
        out_of_range: Callable[[Gap], TagbusError] | None = None,
        optional: Collection[str] = (),
    ) -> None:
        """`out_of_range`: makes the error to raise if the broker does not have an offset; without it reading continues
        at the first record. `optional`: topics that need not exist yet.

        Raises UserError for a property that librdkafka rejects.
        """
        self.kafka = kafka
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
        """Assign every partition of the topics that is not assigned yet: all of them first, added ones later.

        Raises TopicMissing, UserError if a right is missing, DependencyDown if no broker answers, and `out_of_range`'s
        error for a start that the broker does not have.
        """
        fresh = [
            partition for topic in topics for partition in self._list(topic) if partition not in self.positions.next
        ]
        self.assign({partition: self._range(partition, start) for partition in fresh})

    def assign(self, ranges: Mapping[Partition, Watermarks]) -> None:
        """Assign these partitions too, each from `low`; it is caught up at `high`."""
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

        A terminal error is raised by the next call, after the records that preceded it: TopicMissing, UserError if a
        right is missing, Fatal, or `out_of_range`'s. Errors that librdkafka recovers from are logged.
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
                self.positions.at_end.discard(partition_of(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                self.positions.next[partition_of(message)] = offset_of(message)
                self.positions.at_end.add(partition_of(message))
            else:
                self._on_error(error, message)
        return Chunk(tuple(records), self.positions.copy())

    def check(self, recreated: Collection[str]) -> None:
        """Raise for topics that were created again since their partitions were assigned: `out_of_range`'s error, or
        TopicRecreated without it."""
        positions = [(offset, one) for one, offset in self.positions.next.items() if one[0] in recreated]
        if not positions:
            return
        offset, partition = max(positions)
        if self._out_of_range is None:
            raise TopicRecreated(partition[0], "this process does not read the new one")
        raise self._out_of_range(Gap(partition, offset, "the offsets of a new topic"))

    def close(self) -> None:
        """Close the consumer, ignoring late errors."""
        with suppress(*RAISED):
            self._consumer.close()

    def _list(self, topic: str) -> list[Partition]:
        try:
            return list_partitions(self._consumer, self.kafka, topic)
        except TopicMissing:
            if topic in self._optional:
                return []
            raise

    def _range(self, partition: Partition, start: Start) -> Watermarks:
        marks = watermarks(self._consumer, self.kafka, partition)
        match start:
            case "beginning":
                return marks
            case "end":
                return Watermarks(marks.high, marks.high)
            case datetime():
                return Watermarks(offset_at(self._consumer, self.kafka, partition, start), marks.high)
        offset = start.get(partition, marks.low)
        if marks.low <= offset <= marks.high:
            return Watermarks(offset, marks.high)
        if self._out_of_range is None:
            return marks
        raise self._out_of_range(Gap(partition, offset, f"offsets {marks.low} to {marks.high}"))

    def _consume(self, count: int, seconds: float, fill: float) -> list[Message]:
        # `consume` waits until it has as many records as requested, so request only the first.
        try:
            first = self._consumer.consume(1, seconds)
            return first + self._consumer.consume(count - 1, fill) if first and count > 1 else first
        except RAISED as raised:
            error = error_of(raised)
            raise classify(error, self.kafka, "") or DependencyDown(f"reading failed: {error.str()}") from None

    def _on_error(self, error: KafkaError, message: Message) -> None:
        topic = message.topic() or ""
        if error.code() == KafkaError._AUTO_OFFSET_RESET and self._out_of_range is not None:
            gap = Gap(partition_of(message), offset_of(message), f"other offsets ({error.str()})")
            self._failure = self._out_of_range(gap)
        elif self._tolerated(error, topic) or (failure := classify(error, self.kafka, topic)) is None:
            report(error)
        else:
            self._failure = failure

    def _tolerated(self, error: KafkaError, topic: str) -> bool:
        # librdkafka looks up the coordinator of the unused group and reports the result.
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return True
        return error.code() in NO_TOPIC and topic in self._optional
