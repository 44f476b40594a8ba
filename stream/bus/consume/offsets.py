"""Where partitions begin, go on and end: what part of a topic is read, and partitions that librdkafka stopped to fetch.

With auto.offset.reset=error librdkafka says that a group has no offset of a partition, or one that is gone, instead of
choosing itself. Such a partition cannot be sought (librdkafka issue 2961: `_STATE`), it is taken out of the assignment
and put in again where it shall begin. Where offsets have gone back (a topic that was created again) it begins as one
that has just come; what was read before is published first, because it stands nowhere else any more.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from confluent_kafka import OFFSET_BEGINNING, OFFSET_STORED, Consumer, KafkaException, TopicPartition

from tagbus.stream.bus.consume.batching import PartitionBuffer
from tagbus.stream.bus.consume.crash_loop import Commit
from tagbus.stream.bus.in_flight import InFlight
from tagbus.stream.config import KafkaSettings
from tagbus.stream.errors import DependencyDown, Fatal, OffsetLost, UserError
from tagbus.stream.kafka.errors import error_of, map_kafka_errors
from tagbus.stream.kafka.logs import report
from tagbus.stream.kafka.message import Partition
from tagbus.stream.kafka.metadata import Watermarks, offset_at, watermarks

log = logging.getLogger(__name__)

# For a question to the broker. Behind a fetch that waits for records it takes fetch.wait.max.ms, 500.
ASK_SECONDS: Final = 5.0
NO_END: Final = 2**63
# Between two tries to have a partition begin.
PAUSE_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class ReadRange:
    """What a backfill reads.

    `starts`: where a partition begins as long as its group has no offset of it: the earliest record, the first one at
    or after a time, or an offset for each partition (a partition that is not named begins at its end). `until`: it
    ends before what is there when the worker starts, or before the first record at or after a time; None: never.
    `rate`: contents a second at most, of this worker; None: as fast as it goes.
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
    """Where the partitions of a topic begin and end. Asks the broker through the worker's consumer."""

    def __init__(self, kafka: KafkaSettings, topic: str, consumer: Consumer, read_range: ReadRange | None) -> None:
        self._kafka = kafka
        self._topic = topic
        self._consumer = consumer
        self._span = read_range
        self._ends: dict[Partition, int] = {}

    def fix(self, numbers: Iterable[int]) -> None:
        """Find out where each of all the partitions ends now. Raises UserError for one that the span names and is not
        there, DependencyDown when no broker answers."""
        if self._span is None:
            return
        partitions = [(self._topic, number) for number in numbers]
        if isinstance(self._span.starts, Mapping) and (
            wrong := set(self._span.starts) - {partition[1] for partition in partitions}
        ):
            raise UserError(f"topic {self._topic} has no partition {min(wrong)}, expected 0 to {len(partitions) - 1}")
        until = self._span.until
        if until is not None:
            self._ends = {partition: self._end(partition, until) for partition in partitions}

    def end(self, partition: Partition) -> int:
        """The offset from which on nothing is read, NO_END for all."""
        return self._ends.get(partition, NO_END)

    def fix_again(self, partition: Partition) -> None:
        """Find out anew where a partition ends whose offsets have gone back. Raises DependencyDown."""
        if self._span is not None and (until := self._span.until) is not None:
            self._ends[partition] = self._end(partition, until)

    @property
    def bounded(self) -> bool:
        """Whether the work has an end."""
        return self._span is not None and self._span.until is not None

    def begin(self, partition: Partition) -> int:
        """The offset at which a partition begins of which the group has none, or OFFSET_BEGINNING.

        Raises UserError for an offset that is not on the broker, DependencyDown when no broker answers.
        """
        if self._span is None:
            return OFFSET_BEGINNING if self._kafka.start == "earliest" else self._high(partition)
        starts = self._span.starts
        if isinstance(starts, datetime):
            return self._at(partition, starts)
        if isinstance(starts, Mapping):
            return self._named(partition, starts)
        return OFFSET_BEGINNING

    def again(self, partition: Partition, lost: int) -> int:
        """The offset at which a partition goes on that the client could not go on with at `lost`.

        `lost` itself where the broker has it: the group's first offset may have been committed by another member after
        the client had asked for it. Raises OffsetLost where it is gone.
        """
        low, high = self._watermarks(partition)
        return lost if low <= lost <= high else self._beyond(partition, lost, low, high)

    def beyond(self, partition: Partition, lost: int) -> int:
        """The same for a partition that this worker has read up to `lost`: the broker refused that offset, so whatever
        it has there by now is not what would have come next."""
        return self._beyond(partition, lost, *self._watermarks(partition))

    def _beyond(self, partition: Partition, lost: int, low: int, high: int) -> int:
        policy = self._kafka.out_of_range
        if policy == "stop":
            raise OffsetLost(
                f"offset {lost} of {partition[0]}:{partition[1]} is no longer on the broker, "
                f"which has {low} to {high}; "
                "kafka.out_of_range says to stop, earliest or latest would go on there"
            )
        return low if policy == "earliest" else high

    def _end(self, partition: Partition, until: Literal["end"] | datetime) -> int:
        return self._high(partition) if until == "end" else self._at(partition, until)

    def _named(self, partition: Partition, offsets: Mapping[int, int]) -> int:
        low, high = self._watermarks(partition)
        offset = offsets.get(partition[1], high)
        if not low <= offset <= high:
            raise UserError(
                f"offset {offset} of {partition[0]}:{partition[1]} is not on the broker, expected {low} to {high}"
            )
        return offset

    def _at(self, partition: Partition, time: datetime) -> int:
        return offset_at(self._consumer, self._kafka, partition, time, ASK_SECONDS)

    def _high(self, partition: Partition) -> int:
        return self._watermarks(partition).high

    def _watermarks(self, partition: Partition) -> Watermarks:
        return watermarks(self._consumer, self._kafka, partition, ASK_SECONDS)


class OffsetResets:
    """The partitions that wait to begin somewhere. Belongs to the poll thread."""

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        consumer: Consumer,
        in_flight: InFlight,
        bounds: RangeBounds,
        commit: Commit,
        anew: Callable[[Partition], None],
    ) -> None:
        """`anew` is told of a partition whose offsets have gone back, before its records come."""
        self._kafka = kafka
        self._topic = topic
        self._consumer = consumer
        self._in_flight = in_flight
        self._bounds = bounds
        self._commit = commit
        self._anew = anew
        strategy = kafka.options.get("partition.assignment.strategy", "cooperative-sticky")
        self._eager = kafka.group_protocol == "classic" and strategy != "cooperative-sticky"
        self._waiting: set[Partition] = set()
        self._next_try = 0.0

    def add(self, partition: Partition) -> None:
        """librdkafka says that it does not know where to read on."""
        self._waiting.add(partition)

    def serve(self, buffers: Mapping[Partition, PartitionBuffer]) -> None:
        """Have what waits begin; where that fails, later.

        Raises OffsetLost where `kafka.out_of_range` says to stop, UserError for an offset that a backfill names and
        the broker has not.
        """
        if not self._waiting or time.monotonic() < self._next_try:
            return
        self._next_try = time.monotonic() + PAUSE_SECONDS
        try:
            with map_kafka_errors(self._kafka, self._topic):
                self._begin(buffers)
        except KafkaException as exception:
            report(error_of(exception))
            return
        except DependencyDown as error:
            log.warning("restart: %s", error)
            return
        if not self._waiting:
            self._next_try = 0.0

    def _begin(self, buffers: Mapping[Partition, PartitionBuffer]) -> None:
        self._waiting &= buffers.keys()
        partitions = [partition for partition in self._waiting if self._published(partition, buffers[partition])]
        # The last offset that was read, -1 where none was.
        read = {partition: buffer.last for partition, buffer in buffers.items()}
        # All questions come before the first partition is fetched: behind a fetch each would take 500 ms.
        starts = [self._start(TopicPartition(*partition), read) for partition in partitions]
        back = [start for start in starts if 0 <= start.offset <= read[start.topic, start.partition]]
        # What begins at a moment or at the end begins there again, whoever has the partition then.
        fresh = [start for start in starts if start.offset >= 0 and read[start.topic, start.partition] < 0]
        error = self._commit([*fresh, *back]) if fresh or back else None
        if error is not None:
            raise KafkaException(error)
        for partition in ((start.topic, start.partition) for start in back):
            self._bounds.fix_again(partition)
            self._anew(partition)
        self._assign(starts, read)
        self._waiting.difference_update(partitions)

    def _published(self, partition: Partition, buffer: PartitionBuffer) -> bool:
        """Whether nothing that was read of it waits or is under way."""
        return not buffer.records and self._in_flight.first(partition) is None

    def _assign(self, starts: list[TopicPartition], read: Mapping[Partition, int]) -> None:
        """Have the partitions fetched from there."""
        partitions = {(start.topic, start.partition) for start in starts}
        if self._eager:
            kept = [
                TopicPartition(*partition, last + 1 if last >= 0 else OFFSET_STORED)
                for partition, last in read.items()
                if partition not in partitions
            ]
            self._consumer.assign([*kept, *starts])
        elif starts:
            self._consumer.incremental_unassign(starts)
            try:
                self._consumer.incremental_assign(starts)
            except KafkaException as exception:
                reason = error_of(exception).str()
                raise Fatal(f"partitions that were taken out of the assignment do not go in again: {reason}") from None

    def _start(self, asked: TopicPartition, read: Mapping[Partition, int]) -> TopicPartition:
        partition = (asked.topic, asked.partition)
        if read[partition] >= 0:
            offset = self._bounds.beyond(partition, read[partition] + 1)
        else:
            (committed,) = self._consumer.committed([asked], ASK_SECONDS)
            if committed.error is not None:
                raise KafkaException(committed.error)
            offset = (
                self._bounds.begin(partition)
                if committed.offset < 0
                else self._bounds.again(partition, committed.offset)
            )
        log.info("restart: topic=%s partition=%d offset=%d", *partition, offset)
        return TopicPartition(*partition, offset)
