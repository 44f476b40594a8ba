"""The topic of published versions: an event older than the published version of its content never replaces it.

The topic is compacted. A version is written in the transaction of its result, to the partition with the same number as
the content's partition, so the owner of a partition of `content` reads that one partition before its first batch.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tagbus.stream.bus.process.stamps import Stamp, write
from tagbus.stream.bus.process.state_topic import StateTopic
from tagbus.stream.bus.process.versions import BatchClaims, PartitionVersions, Published
from tagbus.stream.bus.processor import Batch, Outgoing, RecordOutcome
from tagbus.stream.config import Settings
from tagbus.stream.kafka.message import Partition

Headers = tuple[tuple[str, bytes | None], ...]


class _Committed(NamedTuple):
    """A committed batch without its records, which must not stay in memory until the next batch."""

    partition: Partition
    epoch: int
    offset: int
    published: list[bool]


class VersionTopic:
    """The versions of the assigned partitions. `open` and `record` belong to the loop thread, the others to any."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.topics.versions
        self._limit = settings.triage.versions
        self._states: StateTopic[PartitionVersions] = StateTopic(settings, self._topic, "versions")
        self._committed: deque[_Committed] = deque()
        self._resized = True

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Start to read the published versions of partitions, in a separate thread. Returns immediately."""
        fresh = list(partitions)
        if not self._limit or not fresh:
            return
        share = self._limit // len({*self._states.partitions, *fresh})
        self._states.assign({partition: PartitionVersions(Published(share)) for partition in fresh})
        self._resized = False

    def ready(self, partition: Partition) -> bool:
        """Whether the published versions of a partition are read. Raises the error that prevented it: UserError for a
        missing right, Fatal, TopicRecreated."""
        return not self._limit or self._states.ready(partition)

    def problem(self) -> str:
        """Which partitions the topic lacks; empty if it has all."""
        return self._states.problem()

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """Forget partitions; their published versions are read again on the next assignment."""
        self._states.revoke(partitions)
        self._resized = False

    def close(self) -> None:
        """End the threads."""
        self._states.close()

    def open(self, batch: Batch) -> BatchClaims:
        """The claims of a batch. Batches of a partition are opened in offset order."""
        while self._committed:
            done = self._committed.popleft()
            if (versions := self._states.partitions.get(done.partition)) is not None:
                versions.commit(done.epoch, done.offset, done.published)
        if not self._resized:
            self._resize()
        versions = self._states.partitions.get(batch.partition)
        offset = batch.sources[0].offset
        return BatchClaims(None, offset) if versions is None else versions.open(batch.epoch, offset)

    def committed(self, batch: Batch, outcomes: Sequence[RecordOutcome]) -> None:
        """Note that the versions of a batch are published. Called on the publish thread; takes effect at the next
        `open`."""
        if self._limit:
            published = [outcome.kind in {"tagged", "withdrawn"} for outcome in outcomes]
            self._committed.append(_Committed(batch.partition, batch.epoch, batch.sources[0].offset, published))

    def record(self, key: bytes | None, given: Stamp, number: int, headers: Headers) -> Outgoing:
        """The record of the published version of a content. 0: none is published."""
        value = write(given) if given else None
        return Outgoing(self._topic, key, value, headers, number)

    def _resize(self) -> None:
        """Share the limit among the partitions; one that is still being read is resized later."""
        every = list(self._states.partitions.values())
        self._resized = all(versions.ready for versions in every)
        for versions in every:
            if versions.ready:
                versions.published.resize(self._limit // len(every))
