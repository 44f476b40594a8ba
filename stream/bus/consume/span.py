"""What part of `content` is read, and how fast: for a service without a bound, for a backfill with one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from confluent_kafka import OFFSET_BEGINNING, Consumer

from tagbus.stream.config import Settings
from tagbus.stream.errors import OffsetLost, UserError
from tagbus.stream.kafka.message import Partition
from tagbus.stream.kafka.metadata import Watermarks, offset_at, watermarks

# For a question to the broker. Behind a fetch that waits for records it takes fetch.wait.max.ms, 500.
ASK_SECONDS: Final = 5.0
NO_END: Final = 2**63


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
    """Where the partitions of `content` begin and end. Asks the broker through the worker's consumer."""

    def __init__(self, settings: Settings, consumer: Consumer, read_range: ReadRange | None) -> None:
        self._settings = settings
        self._consumer = consumer
        self._span = read_range
        self._ends: dict[Partition, int] = {}

    def fix(self, numbers: Iterable[int]) -> None:
        """Find out where each of all the partitions ends now. Raises UserError for one that the span names and is not
        there, DependencyDown when no broker answers."""
        if self._span is None:
            return
        partitions = [(self._settings.topics.content, number) for number in numbers]
        if isinstance(self._span.starts, Mapping) and (
            wrong := set(self._span.starts) - {partition[1] for partition in partitions}
        ):
            raise UserError(
                f"topic {self._settings.topics.content} has no partition {min(wrong)}, "
                f"expected 0 to {len(partitions) - 1}"
            )
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
            return OFFSET_BEGINNING if self._settings.kafka.start == "earliest" else self._high(partition)
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
        policy = self._settings.kafka.out_of_range
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
        return offset_at(self._consumer, self._settings.kafka, partition, time, ASK_SECONDS)

    def _high(self, partition: Partition) -> int:
        return self._watermarks(partition).high

    def _watermarks(self, partition: Partition) -> Watermarks:
        return watermarks(self._consumer, self._settings.kafka, partition, ASK_SECONDS)


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
