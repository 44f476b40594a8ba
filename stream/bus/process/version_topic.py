"""The order of versions: an event that is older than the published version of its content never replaces it.

The published versions stand in a compacted topic, written in the transaction of the results, to the partition of the
same number as the content's: who holds a partition of `content` reads that one partition, before its first batch.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from confluent_kafka import Message

from tagbus.stream import telemetry
from tagbus.stream.bus.process.versions import BatchClaims, PartitionVersions, Published, Stamp, read, write
from tagbus.stream.bus.processor import Batch, Outgoing, RecordOutcome
from tagbus.stream.config import Settings
from tagbus.stream.errors import DependencyDown
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.message import Partition, partition_of
from tagbus.stream.kafka.metadata import Watermarks, watermarks
from tagbus.stream.kafka.reader import TopicReader
from tagbus.stream.retry import backoff

log = logging.getLogger(__name__)

# Records a call, and how long it waits for them: a partition that left is noticed within it.
CHUNK = 2000
WAIT_SECONDS = 0.2
JOIN_SECONDS = 5.0

Headers = tuple[tuple[str, bytes | None], ...]


class _Committed(NamedTuple):
    """A batch that is committed, without its records: they shall not be held until the next batch comes."""

    partition: Partition
    epoch: int
    offset: int
    published: tuple[bool, ...]


class VersionTopic:
    """The ledgers of the assigned partitions. `open` and `record` belong to the loop thread, the others to any."""

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
        """Partitions that came: their published versions are read in a thread of its own. Returns at once."""
        fresh = list(partitions)
        if not self._limit or not fresh:
            return
        share = self._limit // len({*self._partitions, *fresh})
        versions = {partition: PartitionVersions(Published(share)) for partition in fresh}
        self._partitions = {**self._partitions, **versions}
        self._resized = False
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=self._restore, args=(versions,), name="order", daemon=True))
        self._threads[-1].start()

    def ready(self, partition: Partition) -> bool:
        """Whether the partition's published versions are known. Raises what kept them from being read: UserError
        where the topic is not there, Fatal."""
        if self._failure is not None:
            raise self._failure
        versions = self._partitions.get(partition)
        return not self._limit or (versions is not None and versions.ready)

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """Partitions that went: what was under way there is forgotten, and what is published will be read again."""
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
        """The docket of a batch; batches of a partition come in order of offsets."""
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
        """A batch is committed: its versions are published. From the publish thread; taken in at the next `open`."""
        if self._limit:
            published = tuple(outcome.kind in {"tagged", "withdrawn"} for outcome in outcomes)
            self._committed.append(_Committed(batch.partition, batch.epoch, batch.sources[0].offset, published))

    def record(self, key: bytes | None, given: Stamp, number: int, headers: Headers) -> Outgoing:
        """The record that goes out with a result: its content's version is the published one now. 0: none is."""
        value = write(given) if given else None
        return Outgoing(self._settings.topics.versions, key, value, headers, number)

    def _resize(self) -> None:
        """Share the limit among the partitions there are now; one that is being read is left for the next time."""
        every = list(self._partitions.values())
        self._resized = all(versions.ready for versions in every)
        for versions in every:
            if versions.ready:
                versions.published.resize(self._limit // len(every))

    def _restore(self, versions: Mapping[Partition, PartitionVersions]) -> None:
        try:
            _Reading(self._settings, versions, self._wanted, self._closed).run()
        except Exception as error:
            # The poll thread raises it.
            self._failure = error

    def _wanted(self, partition: Partition, versions: PartitionVersions) -> bool:
        return self._partitions.get(partition) is versions and not self._closed.is_set()


class _Reading:
    """Reads the partitions of one assignment from their beginning to the end that they have now.

    The end is asked without regard to transactions, and read to with: results of the partition's last owner that are
    not committed yet are waited for, as the broker makes the offsets that they came from wait.
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
        # By partition of the versions' topic: the partition of `content` that it belongs to, and where it ends.
        self._left: dict[Partition, Partition] = {(self._topic, source[1]): source for source in versions}
        self._ends: dict[Partition, int] = {}

    def run(self) -> None:
        """Until all are read, or none is wanted. Raises TopicMissing, UserError where a right is missing, Fatal."""
        found = self._ask()
        if not self._left:
            return
        # Out of range it goes on at the first record: the topic is compacted, its beginning may move while it is read.
        with TopicReader(self._settings.kafka) as reader:
            reader.assign({partition: found[partition] for partition in self._left})
            while self._going():
                chunk = reader.read(CHUNK, WAIT_SECONDS)
                for message in chunk.messages:
                    self._learn(message)
                for partition, position in chunk.positions.next.items():
                    self._reached(partition, position)

    def _ask(self) -> dict[Partition, Watermarks]:
        """Where each partition begins and ends; asked until the broker answers. Those that are empty are ready."""
        found: dict[Partition, Watermarks] = {}
        delays = backoff(self._settings.retry)
        asker = clients.reader(self._settings.kafka, isolation="read_uncommitted")
        try:
            while self._going() and not self._left.keys() <= found.keys():
                try:
                    for partition in self._left.keys() - found.keys():
                        found[partition] = watermarks(asker, self._settings.kafka, partition)
                except DependencyDown as error:
                    log.warning("versions: %s", error)
                    self._closed.wait(next(delays))
        finally:
            asker.close()
        self._ends = {partition: marks.high for partition, marks in found.items()}
        for partition, marks in found.items():
            self._reached(partition, marks.low)
        return found

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
