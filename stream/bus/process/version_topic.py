"""The topic of published versions: an event older than the published version of its content never replaces it.

The topic is compacted. A version is written in the transaction of its result, to the partition with the same number as
the content's partition, so the owner of a partition of `content` reads that one partition before its first batch.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from confluent_kafka import Consumer, Message

from tagbus.stream import telemetry
from tagbus.stream.bus.process.stamps import Stamp, read, write
from tagbus.stream.bus.process.versions import BatchClaims, PartitionVersions, Published
from tagbus.stream.bus.processor import Batch, Outgoing, RecordOutcome
from tagbus.stream.config import Settings
from tagbus.stream.errors import DependencyDown, TopicMissing
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.message import Partition, partition_of
from tagbus.stream.kafka.metadata import Watermarks, watermarks
from tagbus.stream.kafka.reader import TopicReader
from tagbus.stream.retry import backoff

log = logging.getLogger(__name__)

# Records per call, and how long a call waits for them: a revoked partition is noticed within it.
CHUNK = 2000
WAIT_SECONDS = 0.2
JOIN_SECONDS = 5.0
# Between two looks for partitions that the topic lacks.
LACKING_SECONDS = 2.0

Headers = tuple[tuple[str, bytes | None], ...]


class _Committed(NamedTuple):
    """A committed batch without its records, which must not be kept in memory until the next batch."""

    partition: Partition
    epoch: int
    offset: int
    published: tuple[bool, ...]


class VersionTopic:
    """The versions of the assigned partitions. `open` and `record` belong to the loop thread, the others to any."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._limit = settings.triage.versions
        self._partitions: dict[Partition, PartitionVersions] = {}
        self._committed: deque[_Committed] = deque()
        self._resized = True
        self._failure: Exception | None = None
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Start to read the published versions of partitions, in a thread of their own. Returns at once."""
        fresh = list(partitions)
        if not self._limit or not fresh:
            return
        share = self._limit // len({*self._partitions, *fresh})
        versions = {partition: PartitionVersions(Published(share)) for partition in fresh}
        self._partitions = {**self._partitions, **versions}
        self._resized = False
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=self._restore, args=(versions,), name="versions", daemon=True))
        self._threads[-1].start()

    def ready(self, partition: Partition) -> bool:
        """Whether the published versions of a partition are read. Raises what prevented that: UserError for a missing
        right, Fatal."""
        if self._failure is not None:
            raise self._failure
        versions = self._partitions.get(partition)
        return not self._limit or (versions is not None and versions.ready)

    def problem(self) -> str:
        """Which partitions the topic lacks; empty if it has all."""
        return "; ".join(versions.lacks for versions in self._partitions.values() if versions.lacks)

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """Forget partitions; what is published is read again when they are assigned again."""
        gone = set(partitions)
        self._partitions = {
            partition: versions for partition, versions in self._partitions.items() if partition not in gone
        }
        self._resized = False

    def close(self) -> None:
        """End the threads."""
        self._closed.set()
        self._partitions = {}
        for thread in self._threads:
            thread.join(JOIN_SECONDS)

    def open(self, batch: Batch) -> BatchClaims:
        """The claims of a batch. Batches of a partition are opened in order of offsets."""
        while self._committed:
            done = self._committed.popleft()
            if (versions := self._partitions.get(done.partition)) is not None:
                versions.commit(done.epoch, done.offset, done.published)
        if not self._resized:
            self._resize()
        versions = self._partitions.get(batch.partition)
        offset = batch.sources[0].offset
        return BatchClaims(None, offset) if versions is None else versions.open(batch.epoch, offset)

    def committed(self, batch: Batch, outcomes: Sequence[RecordOutcome]) -> None:
        """The versions of a batch are published. Called on the publish thread; takes effect at the next `open`."""
        if self._limit:
            published = tuple(outcome.kind in {"tagged", "withdrawn"} for outcome in outcomes)
            self._committed.append(_Committed(batch.partition, batch.epoch, batch.sources[0].offset, published))

    def record(self, key: bytes | None, given: Stamp, number: int, headers: Headers) -> Outgoing:
        """The record that says which version of a content is published from now on. 0: none is."""
        value = write(given) if given else None
        return Outgoing(self._settings.topics.versions, key, value, headers, number)

    def _resize(self) -> None:
        """Share the limit among the partitions; one that is still being read is resized later."""
        every = list(self._partitions.values())
        self._resized = all(versions.ready for versions in every)
        for versions in every:
            if versions.ready:
                versions.published.resize(self._limit // len(every))

    def _restore(self, versions: Mapping[Partition, PartitionVersions]) -> None:
        try:
            _Reading(self._settings, versions, self._wanted, self._closed).run()
        except Exception as error:
            # `ready` raises it on the poll thread.
            self._failure = error

    def _wanted(self, partition: Partition, versions: PartitionVersions) -> bool:
        return self._partitions.get(partition) is versions and not self._closed.is_set()


class _Reading:
    """Reads the partitions of one assignment from their start to their end as of now.

    The end includes open transactions, and reading waits for them: results of the partition's last owner that are not
    committed yet are waited for, as the broker makes their offsets wait.
    """

    def __init__(
        self,
        settings: Settings,
        versions: Mapping[Partition, PartitionVersions],
        wanted: Callable[[Partition, PartitionVersions], bool],
        closed: threading.Event,
    ) -> None:
        self._settings = settings
        self._topic = settings.topics.versions
        self._versions = versions
        self._wanted = wanted
        self._closed = closed
        # By partition of this topic: the partition of `content` that it belongs to, and where it ends.
        self._left: dict[Partition, Partition] = {(self._topic, source[1]): source for source in versions}
        self._ends: dict[Partition, int] = {}

    def run(self) -> None:
        """Read until all are read, or none is wanted. Raises UserError for a missing right, Fatal.

        A partition that the topic lacks is waited for: partitions may be added to `content` first. To publish its
        contents without their versions, or with those of another partition, would let an old one replace a newer.
        """
        while self._going():
            found = self._ask()
            self._read({partition: marks for partition, marks in found.items() if partition in self._left})
            if self._going():
                self._closed.wait(LACKING_SECONDS)

    def _read(self, found: Mapping[Partition, Watermarks]) -> None:
        if not found:
            return
        # Out of range the reader goes on at the first record: compaction may move the start while it reads.
        with TopicReader(self._settings.kafka) as reader:
            reader.assign(found)
            while self._going() and not self._left.keys().isdisjoint(found):
                chunk = reader.read(CHUNK, WAIT_SECONDS)
                for message in chunk.messages:
                    self._learn(message)
                for partition, position in chunk.positions.next.items():
                    self._reached(partition, position)

    def _ask(self) -> dict[Partition, Watermarks]:
        """Where each partition that exists starts and ends; asked until the broker answers. Empty ones are ready."""
        asked: dict[Partition, Watermarks | None] = {}
        delays = backoff(self._settings.retry)
        asker = clients.reader(self._settings.kafka, isolation="read_uncommitted")
        try:
            while self._going() and not self._left.keys() <= asked.keys():
                try:
                    for partition in self._left.keys() - asked.keys():
                        asked[partition] = self._marks(asker, partition)
                except DependencyDown as error:
                    log.warning("versions: %s", error)
                    self._closed.wait(next(delays))
        finally:
            asker.close()
        found = {partition: marks for partition, marks in asked.items() if marks is not None}
        self._ends = {partition: marks.high for partition, marks in found.items()}
        for partition, marks in found.items():
            self._reached(partition, marks.low)
        return found

    def _marks(self, asker: Consumer, partition: Partition) -> Watermarks | None:
        """None if the topic lacks the partition."""
        source = self._left[partition]
        versions = self._versions[source]
        try:
            marks = watermarks(asker, self._settings.kafka, partition)
        except TopicMissing:
            if not versions.lacks:
                versions.lacks = (
                    f"{source[0]}:{source[1]} waits: topic {self._topic} has no partition {partition[1]}, "
                    "`tagbus topics create --mend` adds it"
                )
                log.warning("versions: %s", versions.lacks)
            return None
        versions.lacks = ""
        return marks

    def _going(self) -> bool:
        self._left = {
            partition: source
            for partition, source in self._left.items()
            if self._wanted(source, self._versions[source])
        }
        return bool(self._left)

    def _learn(self, message: Message) -> None:
        source = self._left.get(partition_of(message))
        key, value = message.key(), message.value()
        telemetry.RESTORED.inc()
        if source is not None and isinstance(key, bytes) and isinstance(value, bytes | None):
            published = self._versions[source].published
            published.put(hash(key.decode(errors="replace")), 0 if value is None else read(value))

    def _reached(self, partition: Partition, position: int) -> None:
        if position >= self._ends[partition] and partition in self._left:
            source = self._left.pop(partition)
            self._versions[source].ready = True
            log.info("versions: partition=%d contents=%d", partition[1], len(self._versions[source].published))
