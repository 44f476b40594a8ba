"""Contents that end the process: found by counting the starts of a partition that got no further.

The count stands in the metadata of the committed offset, so it survives the process and goes with the partition. Any
progress clears it, because offsets of a transaction carry no metadata. After `triage.deadly_starts` less one such
starts the partition is careful: one record at a time, marked before the tagger sees it, and nothing else of this
worker beside it. Who ends the process then is known, and set aside at the next start.
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

# For the question what is committed; it takes a millisecond where the broker is well.
ASK_SECONDS: Final = 5.0
# Between two tries to count, while a rebalance or a broker stands in the way.
PAUSE_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class StartCount:
    """What the metadata of a committed offset says: `starts` without progress, and which record was `alone`."""

    starts: int = 0
    alone: int | None = None

    def __str__(self) -> str:
        if not self.starts:
            return ""
        return json.dumps({"starts": self.starts} | ({} if self.alone is None else {"alone": self.alone}))

    @classmethod
    def read(cls, metadata: str | None) -> "StartCount":
        """The mark in the metadata, which may be somebody else's: what is no mark is none."""
        try:
            found = json.loads(metadata or "{}")
        except (ValueError, RecursionError):
            return cls()
        if not isinstance(found, dict):
            return cls()
        return cls(_number(found.get("starts")) or 0, _number(found.get("alone")))


@dataclass(slots=True)
class Counted:
    """A partition in this assignment: what was found, where the mark stands, and for how many records to be careful."""

    before: StartCount
    offset: int
    left: int = 0


class CrashLoopGuard:
    """The starts of each assigned partition. Belongs to the poll thread."""

    def __init__(self, settings: Settings, topics: WorkerTopics, consumer: Consumer, commit: Commit) -> None:
        """`commit` commits offsets with their metadata and waits."""
        self._kafka = settings.kafka
        self._topic = topics.source
        self._dead_letters = DeadLetterTopic(topics.dead_letters, settings.batch.record_bytes)
        self._limit = settings.triage.deadly_starts
        # As many records of one partition may have been under way (in_flight.InFlight.room).
        self._window = settings.batch.in_flight * settings.batch.contents
        self._consumer = consumer
        self._commit = commit
        self._counted: dict[Partition, Counted] = {}
        self._next_try = 0.0
        # The partitions that are not counted yet, those whose records go alone, and that of which one does now.
        self.fresh: set[Partition] = set()
        self.quarantined: set[Partition] = set()
        self.in_flight: Partition | None = None

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Partitions that came: none is begun before it is counted."""
        partitions = list(partitions)
        self.forget(partitions)
        self.fresh.update(partitions)

    def counted(self, partition: Partition) -> bool:
        """Whether its records may go to the tagger."""
        return partition in self._counted

    def count(self, heads: Mapping[Partition, int]) -> None:
        """Count this start for partitions whose first record is there, by its offset; where that fails, later.

        By then no transaction has offsets of theirs open: librdkafka waits for that before it fetches.
        """
        now = time.monotonic()
        if not heads or now < self._next_try:
            return
        self._next_try = now + PAUSE_SECONDS
        try:
            with map_kafka_errors(self._kafka, self._topic):
                committed = self._consumer.committed([TopicPartition(*partition) for partition in heads], ASK_SECONDS)
        except KafkaException as exception:
            report(error_of(exception))
            return
        marks = {(of.topic, of.partition): StartCount.read(of.metadata) for of in committed if of.error is None}
        offsets = [
            TopicPartition(*partition, heads[partition], str(StartCount(mark.starts + 1, mark.alone)))
            for partition, mark in marks.items()
        ]
        error = self._commit(offsets) if offsets else None
        if error is not None:
            report(error)
            return
        for partition, mark in marks.items():
            self._begin(partition, heads[partition], mark)
        self._next_try = 0.0

    def dead(self, source: Source) -> RecordOutcome | None:
        """The verdict on a record that has ended the process too often; such a record is not to be tagged."""
        before = self._counted[source.topic, source.partition].before
        if before.alone != source.offset or before.starts < self._limit:
            return None
        reason = f"the process ended {before.starts} times while it was tagged"
        log.warning("starts: %s:%d:%d is set aside: %s", source.topic, source.partition, source.offset, reason)
        key = shorten(source.record.key)
        error = Untaggable("tag", (FieldError("content", f"key {key}", f"a content that can be tagged ({reason})"),))
        return self._dead_letters.letter(source, error, before.starts)

    def alone(self, partition: Partition, offset: int) -> bool:
        """StartCount a record of a careful partition as the one under way; False: not now."""
        counted = self._counted[partition]
        error = self._commit([TopicPartition(*partition, offset, str(StartCount(counted.before.starts + 1, offset)))])
        if error is not None:
            report(error)
            return False
        counted.offset = offset
        self.in_flight = partition
        return True

    def settle(self) -> None:
        """The record that was alone is committed."""
        partition, self.in_flight = self.in_flight, None
        if partition is None:
            return
        counted = self._counted[partition]
        counted.left -= 1
        if not counted.left:
            self.quarantined.discard(partition)
            log.info("starts: %s:%d is no longer careful", *partition)

    def revoke(self, untouched: Mapping[Partition, int | None]) -> None:
        """Partitions that are given away in order: a start that got no further and ended well does not count.

        `untouched`: those of which nothing can be on its way to Kafka, with the offset that was committed last.
        """
        offsets = [
            TopicPartition(*partition, counted.offset, str(counted.before))
            for partition, committed in untouched.items()
            if (counted := self._counted.get(partition)) is not None and (committed or 0) <= counted.offset
        ]
        error = self._commit(offsets) if offsets else None
        if error is not None:
            log.info("starts: this start is counted: error=%s", error.name())

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Partitions that are gone."""
        for partition in partitions:
            self._counted.pop(partition, None)
            self.fresh.discard(partition)
            self.quarantined.discard(partition)
            if self.in_flight == partition:
                self.in_flight = None

    def _begin(self, partition: Partition, offset: int, before: StartCount) -> None:
        counted = Counted(before, offset)
        if before.starts >= self._limit - 1:
            counted.left = self._window
            self.quarantined.add(partition)
            log.warning(
                "starts: %s:%d is begun for the %d. time without progress: one record at a time for %d records",
                *partition,
                before.starts + 1,
                self._window,
            )
        self._counted[partition] = counted
        self.fresh.discard(partition)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
