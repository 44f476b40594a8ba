"""Where partitions start, resume and end."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from tagbus.stream.config import KafkaSettings
from tagbus.stream.errors import DependencyDown, OffsetLost, UserError
from tagbus.stream.kafka.errors import classify, error_of, map_kafka_errors
from tagbus.stream.kafka.message import Partition
from tagbus.stream.kafka.metadata import Watermarks, offset_at, watermarks

# The timeout of one request to a broker. Behind a fetch that waits for records it takes fetch.wait.max.ms, 500.
ASK_SECONDS: Final = 5.0
# The end of a partition that is read without end.
NO_END: Final = 2**63


@dataclass(frozen=True, slots=True)
class ReadRange:
    """The range of records that a backfill reads.

    `starts`: where a partition starts if its group has no offset of it: the earliest record, the first one at or after
    a time, or an offset for each partition (a partition that is not named starts at its end). `until`: reading stops
    before records written after the worker has started, or before the first record at or after a time; None: never.
    `rate`: this worker's limit in contents a second; None: no limit.
    """

    starts: Literal["earliest"] | datetime | Mapping[int, int] = "earliest"
    until: Literal["end"] | datetime | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        for name in ("starts", "until"):
            value = getattr(self, name)
            if isinstance(value, datetime) and value.tzinfo is None:
                raise UserError(f"{name}: {value.isoformat()} has no time zone, expected one, for instance Z")
        if self.rate is not None and self.rate <= 0:
            raise UserError(f"rate: {self.rate:g} is wrong, expected contents a second above 0")


class RangeBounds:
    """Where the partitions of a topic start and end. Asks brokers through the worker's consumer.

    Methods that ask raise DependencyDown when no broker answers.
    """

    def __init__(self, kafka: KafkaSettings, topic: str, consumer: Consumer, read_range: ReadRange | None) -> None:
        self.kafka = kafka
        self.topic = topic
        self._consumer = consumer
        self._range = read_range
        self._ends: dict[Partition, int] = {}
        # Where the partitions ended that existed when the group had no offset at all.
        self._unread: dict[Partition, int] = {}

    def asked_through(self, consumer: Consumer) -> "RangeBounds":
        """The same bounds, which ask brokers through another client."""
        other = copy.copy(self)
        other._consumer = consumer
        return other

    @property
    def bounded(self) -> bool:
        """Whether reading ends."""
        return self._range is not None and self._range.until is not None

    def look(self, numbers: Iterable[int]) -> None:
        """Before joining the group: find the ends of all partitions of the topic, or whether the group has no offset at
        all. Raises UserError for a partition that the range names and the topic does not have."""
        partitions = [(self.topic, number) for number in numbers]
        if self._range is None:
            if self.kafka.start == "latest" and not self._any_committed(partitions):
                self._unread = {partition: self._high(partition) for partition in partitions}
            return
        if isinstance(self._range.starts, Mapping) and (
            wrong := set(self._range.starts) - {partition[1] for partition in partitions}
        ):
            raise UserError(f"topic {self.topic} has no partition {min(wrong)}, expected 0 to {len(partitions) - 1}")
        for partition in partitions:
            self.find_end(partition)

    def find_end(self, partition: Partition) -> None:
        """Find the current end of one partition."""
        if self._range is not None and (until := self._range.until) is not None:
            self._ends[partition] = self._high(partition) if until == "end" else self._at(partition, until)

    def end(self, partition: Partition) -> int:
        """The first offset that is not read, NO_END if there is none. A backfill that ends leaves out records and
        partitions that are added later."""
        return self._ends.get(partition, 0 if self.bounded else NO_END)

    def start(self, partition: Partition) -> int:
        """Where a partition without a group offset starts; may be OFFSET_BEGINNING.

        `kafka.start` applies to groups without any offset; the latest record is the last one before this worker joined.
        A partition added to a topic that is already read starts at its beginning: all of its records are newer. So
        does one that now ends before the latest record: its topic was created again.

        Raises UserError for an offset that the range names and the broker does not have.
        """
        if self._range is None:
            return self._latest(partition) if partition in self._unread else OFFSET_BEGINNING
        starts = self._range.starts
        if isinstance(starts, datetime):
            return self._at(partition, starts)
        if isinstance(starts, Mapping):
            return self._named(partition, starts)
        return OFFSET_BEGINNING

    def resume(self, partition: Partition, committed: int) -> int:
        """Where to resume a partition that the client could not fetch at the committed offset.

        That is the committed offset if the broker has it: another member may have committed the group's first offset
        after the client had asked for it. Raises OffsetLost as `kafka.out_of_range` says.
        """
        low, high = self._watermarks(partition)
        return committed if low <= committed <= high else self._out_of_range(partition, committed, low, high)

    def reset(self, partition: Partition, position: int) -> int:
        """Where to resume a partition that this worker has read up to `position`, an offset that the broker refused:
        the record at that offset now is not the next one. Raises OffsetLost as `kafka.out_of_range` says."""
        return self._out_of_range(partition, position, *self._watermarks(partition))

    def _out_of_range(self, partition: Partition, offset: int, low: int, high: int) -> int:
        policy = self.kafka.out_of_range
        if policy == "stop":
            raise OffsetLost(
                f"offset {offset} of {partition[0]}:{partition[1]} is no longer on the broker, which has {low} to "
                f"{high}; kafka.out_of_range is stop, earliest or latest would resume there"
            )
        return low if policy == "earliest" else high

    def recreated(self) -> None:
        """The topic was created again: all of its records are newer than this worker."""
        self._unread.clear()

    def low(self, partition: Partition) -> int:
        """The first offset that the broker has."""
        return self._watermarks(partition).low

    def _latest(self, partition: Partition) -> int:
        offset, (low, high) = self._unread[partition], self._watermarks(partition)
        return offset if low <= offset <= high else OFFSET_BEGINNING

    def _named(self, partition: Partition, offsets: Mapping[int, int]) -> int:
        low, high = self._watermarks(partition)
        offset = offsets.get(partition[1], high)
        if not low <= offset <= high:
            raise UserError(
                f"offset {offset} of {partition[0]}:{partition[1]} is not on the broker, expected {low} to {high}"
            )
        return offset

    def _any_committed(self, partitions: Iterable[Partition]) -> bool:
        try:
            with map_kafka_errors(self.kafka, self.topic):
                found = self._consumer.committed([TopicPartition(*partition) for partition in partitions], ASK_SECONDS)
        except KafkaException as exception:
            # A group that this principal may not see is not found until the timeout; the reason arrives as a message.
            message = self._consumer.poll(0)
            error = (message.error() if message is not None else None) or error_of(exception)
            raise classify(error, self.kafka, self.topic) or DependencyDown(
                f"no broker returned the offsets of group {self.kafka.group}: {error.str()}"
            ) from None
        if wrong := next((one.error for one in found if one.error is not None), None):
            raise DependencyDown(f"no broker returned the offsets of group {self.kafka.group}: {wrong.str()}")
        return any(one.offset >= 0 for one in found)

    def _at(self, partition: Partition, time: datetime) -> int:
        return offset_at(self._consumer, self.kafka, partition, time, ASK_SECONDS)

    def _high(self, partition: Partition) -> int:
        return self._watermarks(partition).high

    def _watermarks(self, partition: Partition) -> Watermarks:
        return watermarks(self._consumer, self.kafka, partition, ASK_SECONDS)
