"""The crash-loop guard: find contents that end the process, by counting starts of a partition without progress.

The count is kept in the metadata of the committed offset, so it survives the process and moves with the partition. Any
progress resets it, because offsets committed in a transaction carry no metadata. One start before
`triage.deadly_starts` the partition is quarantined: its records are processed one at a time, each marked in the
metadata first, with nothing else of this worker in flight. That identifies the record that ends the process, and the
next start sets it aside. A record that others were processed before has ended it once at most, perhaps killed from
outside: it is tried alone once more.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from tagbus.stream.bus.process.dead_letters import DeadLetterTopic
from tagbus.stream.bus.processor import RecordOutcome, Source, WorkerTopics
from tagbus.stream.config import Settings
from tagbus.stream.errors import FieldError, Untaggable, shorten
from tagbus.stream.kafka.errors import error_of, map_kafka_errors
from tagbus.stream.kafka.logs import report
from tagbus.stream.kafka.message import Partition

log = logging.getLogger(__name__)

Commit = Callable[[list[TopicPartition]], KafkaError | None]

# The timeout of the request for committed offsets; it takes a millisecond when the broker is healthy.
ASK_SECONDS: Final = 5.0
# Between two tries to count, during a rebalance or while a broker does not answer.
PAUSE_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class StartCount:
    """The metadata of a committed offset: `starts` without progress, and the offset of the record that was `alone`."""

    starts: int = 0
    alone: int | None = None

    def __str__(self) -> str:
        if not self.starts:
            return ""
        return json.dumps({"starts": self.starts} | ({} if self.alone is None else {"alone": self.alone}))

    @classmethod
    def read(cls, metadata: str | None) -> "StartCount":
        """Read metadata. Metadata that another application wrote counts as 0."""
        try:
            found = json.loads(metadata or "{}")
        except (ValueError, RecursionError):
            return cls()
        if not isinstance(found, dict):
            return cls()
        return cls(_number(found.get("starts")) or 0, _number(found.get("alone")))


@dataclass(slots=True)
class Counted:
    """A partition whose start is counted: the metadata before it, the offset of its first record, the current offset,
    how many more records the quarantine covers, and whether the offsets are those of a topic that is gone."""

    before: StartCount
    first: int
    offset: int
    left: int = 0
    outdated: bool = False


class CrashLoopGuard:
    """Counts the starts of each assigned partition. Belongs to the poll thread."""

    def __init__(self, settings: Settings, topics: WorkerTopics, consumer: Consumer, commit: Commit) -> None:
        """`commit` commits offsets with their metadata and waits for the answer."""
        self._kafka = settings.kafka
        self._topic = topics.source
        self._dead_letters = DeadLetterTopic(topics.dead_letters, settings.batch.record_bytes)
        self._limit = settings.triage.deadly_starts
        # The most records of one partition that may have been in flight (InFlight.room).
        self._window = settings.batch.in_flight * settings.batch.contents
        self._consumer = consumer
        self._commit = commit
        self._counted: dict[Partition, Counted] = {}
        self._next_try = 0.0
        # Partitions whose start is not counted yet, quarantined ones, and the one whose record is in flight.
        self.fresh: set[Partition] = set()
        self.quarantined: set[Partition] = set()
        self.in_flight: Partition | None = None

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Partitions were assigned; their records wait until the start is counted."""
        partitions = list(partitions)
        self.forget(partitions)
        self.fresh.update(partitions)

    def counted(self, partition: Partition) -> bool:
        """Whether its records may be processed."""
        return partition in self._counted

    def count(self, oldest: Mapping[Partition, int]) -> None:
        """Count this start for partitions, given the offset of the first record of each. Failures are retried.

        No transaction holds offsets of theirs any more: librdkafka waits for that before it fetches.
        """
        now = time.monotonic()
        if not oldest or now < self._next_try:
            return
        self._next_try = now + PAUSE_SECONDS
        try:
            with map_kafka_errors(self._kafka, self._topic):
                committed = self._consumer.committed([TopicPartition(*partition) for partition in oldest], ASK_SECONDS)
        except KafkaException as exception:
            report(error_of(exception))
            return
        counts = {(of.topic, of.partition): StartCount.read(of.metadata) for of in committed if of.error is None}
        offsets = [
            TopicPartition(*partition, oldest[partition], str(StartCount(count.starts + 1, count.alone)))
            for partition, count in counts.items()
        ]
        error = self._commit(offsets) if offsets else None
        if error is not None:
            report(error)
            return
        for partition, count in counts.items():
            self._begin(partition, oldest[partition], count)
        self._next_try = 0.0

    def mark(self, partition: Partition, offset: int) -> bool:
        """Commit that the record at this offset of a quarantined partition is in flight alone; False if that failed."""
        counted = self._counted[partition]
        # The starts that this record had no part in do not count against it.
        starts = counted.before.starts + 1 if offset == counted.first else self._limit - 1
        error = self._commit([TopicPartition(*partition, offset, str(StartCount(starts, offset)))])
        if error is not None:
            report(error)
            return False
        counted.offset = offset
        self.in_flight = partition
        return True

    def dead_letter_for(self, source: Source) -> RecordOutcome | None:
        """A dead letter for a record that has ended the process too often; None if it may be processed."""
        before = self._counted[source.topic, source.partition].before
        if before.alone != source.offset or before.starts < self._limit:
            return None
        reason = f"the process ended {before.starts} times while it was tagged"
        log.warning("crash loop: %s:%d:%d is set aside: %s", source.topic, source.partition, source.offset, reason)
        key = shorten(source.record.key)
        error = Untaggable("tag", (FieldError("content", f"key {key}", f"a content that can be tagged ({reason})"),))
        return self._dead_letters.letter(source, error, before.starts)

    def settle(self) -> None:
        """Handle the commit of the record that was in flight alone."""
        partition, self.in_flight = self.in_flight, None
        if partition is None:
            return
        counted = self._counted[partition]
        counted.left -= 1
        if not counted.left:
            self.quarantined.discard(partition)
            log.info("crash loop: %s:%d is no longer quarantined", *partition)

    def revoke(self, untouched: Mapping[Partition, int | None]) -> None:
        """Take back the count of partitions that are revoked cleanly and made no progress.

        `untouched`: those with nothing on its way to Kafka, and the last offset that each committed.
        """
        offsets = [
            TopicPartition(*partition, counted.offset, str(counted.before))
            for partition, committed in untouched.items()
            if (counted := self._counted.get(partition)) is not None
            and not counted.outdated
            and (committed or 0) <= counted.offset
        ]
        error = self._commit(offsets) if offsets else None
        if error is not None:
            log.info("crash loop: this start stays counted: error=%s", error.name())

    def recreated(self) -> None:
        """The topic was created again: no offset of the old one may be committed as a start in the new one."""
        for counted in self._counted.values():
            counted.outdated = True

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Drop revoked partitions."""
        for partition in partitions:
            self._counted.pop(partition, None)
            self.fresh.discard(partition)
            self.quarantined.discard(partition)
            if self.in_flight == partition:
                self.in_flight = None

    def _begin(self, partition: Partition, offset: int, before: StartCount) -> None:
        counted = Counted(before, offset, offset)
        if before.starts >= self._limit - 1:
            counted.left = self._window
            self.quarantined.add(partition)
            log.warning(
                "crash loop: %s:%d was started %d times without progress: one record at a time for %d records",
                *partition,
                before.starts + 1,
                self._window,
            )
        self._counted[partition] = counted
        self.fresh.discard(partition)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
