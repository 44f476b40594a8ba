"""Where partitions start, resume and end, and partitions that librdkafka stopped fetching.

With auto.offset.reset=error librdkafka reports that the group has no offset of a partition, or one that no longer
exists, instead of choosing where to resume. Such a partition cannot be sought (librdkafka issue 2961: `_STATE`); it is
removed from the assignment and added again at its offset. Where offsets have gone back (a recreated topic) the
partition starts as if it had just been assigned, after everything read before is published: those records exist nowhere
else.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from confluent_kafka import OFFSET_BEGINNING, OFFSET_STORED, Consumer, KafkaException, Message, TopicPartition

from tagbus.stream.bus.consume.batching import Buffers, PartitionBuffer
from tagbus.stream.bus.consume.crash_loop import Commit
from tagbus.stream.bus.consume.silence import Silence
from tagbus.stream.bus.in_flight import InFlight
from tagbus.stream.config import KafkaSettings
from tagbus.stream.errors import DependencyDown, Fatal, OffsetLost, UserError
from tagbus.stream.kafka.clients import ASSIGNOR
from tagbus.stream.kafka.errors import classify, error_of, map_kafka_errors
from tagbus.stream.kafka.logs import report
from tagbus.stream.kafka.message import Partition
from tagbus.stream.kafka.metadata import Watermarks, offset_at, watermarks

log = logging.getLogger(__name__)

# The timeout of one request to a broker. Behind a fetch that waits for records it takes fetch.wait.max.ms, 500.
ASK_SECONDS: Final = 5.0
# The end of a partition that is read without end.
NO_END: Final = 2**63
# Between two attempts to have a partition fetched again.
PAUSE_SECONDS: Final = 0.2


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
        # The partitions that existed when the group had no offset at all.
        self._unread: frozenset[Partition] = frozenset()

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
                self._unread = frozenset(partitions)
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

        `kafka.start` applies to groups without any offset. A partition added to a topic that is already read starts at
        its beginning: all of its records are newer.

        Raises UserError for an offset that the range names and the broker does not have.
        """
        if self._range is None:
            return self._high(partition) if partition in self._unread else OFFSET_BEGINNING
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


class OffsetResets:
    """Restarts partitions that librdkafka stopped fetching. Belongs to the poll thread."""

    def __init__(
        self,
        consumer: Consumer,
        bounds: RangeBounds,
        in_flight: InFlight,
        commit: Commit,
        on_back: Callable[[Partition], None],
    ) -> None:
        """`on_back` is called with a partition whose offsets have gone back, before its records come."""
        self._consumer = consumer
        self._bounds = bounds
        self._in_flight = in_flight
        self._commit = commit
        self._on_back = on_back
        kafka = bounds.kafka
        strategy = kafka.options.get("partition.assignment.strategy", ASSIGNOR)
        self._eager = kafka.group_protocol == "classic" and strategy != ASSIGNOR
        self._waiting: set[Partition] = set()
        # The partitions in `_waiting` whose position the broker refused; the others were silent.
        self._refused: set[Partition] = set()
        self._silence = Silence()
        self._next_try = 0.0

    def add(self, partition: Partition) -> None:
        """Handle librdkafka's report that it does not know where to resume."""
        self._waiting.add(partition)
        self._refused.add(partition)
        self._silence.expect([partition])

    def assigned(self, partitions: Iterable[Partition]) -> None:
        """Expect librdkafka to report on each assigned partition."""
        self._silence.expect(partitions)

    def listen(self, messages: Sequence[Message], buffers: Buffers, *, drained: bool) -> None:
        """Take in the messages that librdkafka returned; see Silence."""
        self._waiting.update(self._silence.listen(messages, buffers, drained=drained))

    def serve(self, buffers: Buffers) -> None:
        """Have waiting partitions fetched again; failures are retried later.

        Raises OffsetLost as `kafka.out_of_range` says, UserError for an offset that a backfill names and the broker
        does not have.
        """
        if not self._waiting or time.monotonic() < self._next_try:
            return
        self._next_try = time.monotonic() + PAUSE_SECONDS
        try:
            with map_kafka_errors(self._bounds.kafka, self._bounds.topic):
                self._reset(buffers)
        except KafkaException as exception:
            report(error_of(exception))
            return
        except DependencyDown as error:
            log.warning("offsets: %s", error)
            return
        if not self._waiting:
            self._next_try = 0.0

    def _reset(self, buffers: Buffers) -> None:
        self._waiting &= buffers.keys()
        self._refused &= self._waiting
        # A silent partition whose records have arrived since is being fetched, and needs no reset.
        self._waiting -= {partition for partition in self._waiting - self._refused if buffers[partition].last >= 0}
        partitions = [partition for partition in self._waiting if self._published(partition, buffers[partition])]
        # The last offset read, -1 for none.
        read = {partition: buffer.last for partition, buffer in buffers.items()}
        # All requests come before the first partition is fetched: behind a fetch each would take 500 ms.
        starts = [self._start(TopicPartition(*partition), read) for partition in partitions]
        back = [start for start in starts if 0 <= start.offset <= read[start.topic, start.partition]]
        # A partition that starts at a time or at the end starts there again under its next owner.
        fresh = [start for start in starts if start.offset >= 0 and read[start.topic, start.partition] < 0]
        error = self._commit([*fresh, *back]) if fresh or back else None
        if error is not None:
            raise KafkaException(error)
        for partition in ((start.topic, start.partition) for start in back):
            self._bounds.find_end(partition)
            self._on_back(partition)
        self._assign(starts, read)
        self._waiting.difference_update(partitions)
        self._refused.difference_update(partitions)

    def _published(self, partition: Partition, buffer: PartitionBuffer) -> bool:
        return not buffer.records and self._in_flight.first(partition) is None

    def _assign(self, starts: list[TopicPartition], read: Mapping[Partition, int]) -> None:
        """Have partitions fetched from these offsets."""
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
                raise Fatal(
                    f"partitions that were removed from the assignment cannot be added again: {reason}"
                ) from None

    def _start(self, asked: TopicPartition, read: Mapping[Partition, int]) -> TopicPartition:
        partition = (asked.topic, asked.partition)
        if read[partition] >= 0:
            offset = self._bounds.reset(partition, read[partition] + 1)
        else:
            (committed,) = self._consumer.committed([asked], ASK_SECONDS)
            if committed.error is not None:
                raise KafkaException(committed.error)
            none = committed.offset < 0
            offset = self._bounds.start(partition) if none else self._bounds.resume(partition, committed.offset)
        log.info("offsets: topic=%s partition=%d start=%d", *partition, offset)
        return TopicPartition(*partition, offset)
