"""A memory shared by workers in a Qdrant server: one indexer writes it, workers wait until it has caught up.

The indexer's progress is stored in Kafka, as committed offsets of a consumer group without members; their metadata is
the time of the commit. It is the start gate and the taxonomy version of every worker.
"""

import asyncio
import logging
import math
import time
from collections.abc import Mapping

from confluent_kafka import OFFSET_INVALID, TopicPartition

from tagbus.stream.config import Settings
from tagbus.stream.errors import DependencyDown, Retryable, TagbusError, TopicMissing
from tagbus.stream.index.apply import Projection
from tagbus.stream.index.bootstrap import Follower
from tagbus.stream.index.changes import TagChanges
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.errors import RAISED, classify, error_of
from tagbus.stream.kafka.message import Partition
from tagbus.stream.kafka.metadata import list_partitions, watermarks
from tagbus.stream.kafka.rights import REFUSED
from tagbus.stream.memory.kinds import KINDS, Kind
from tagbus.stream.memory.store import Memory
from tagbus.stream.retry import backoff

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
# Timeout of a query for committed offsets.
ANSWER_SECONDS = 10.0
# Interval of listing partitions: topics seldom grow.
LIST_SECONDS = 30.0


class Progress:
    """The applied offsets of the shared memory of one release."""

    def __init__(self, settings: Settings, release: str) -> None:
        self._settings = settings
        self._group = f"{settings.kafka.group}-index-{release}"
        self._consumer = clients.offset_store(settings.kafka, self._group)
        self._known: list[Partition] = []
        self._listed = -math.inf

    def partitions(self) -> list[Partition]:
        """Every partition of the memory topics."""
        return [partition for kind in KINDS.values() for partition in self._list(kind)]

    def _list(self, kind: Kind) -> list[Partition]:
        try:
            return list_partitions(self._consumer, self._settings.kafka, kind.topic(self._settings.topics))
        except TopicMissing:
            if kind.optional:
                return []
            raise

    def ends(self) -> dict[Partition, int]:
        """The current high watermarks."""
        kafka = self._settings.kafka
        return {partition: watermarks(self._consumer, kafka, partition).high for partition in self.partitions()}

    def committed(self) -> dict[Partition, tuple[int, float]]:
        """Next offset and commit time (Unix seconds) of each partition that has a commit.

        Workers query every 0.5 s; partitions are listed every 30 s, because topics seldom grow.
        """
        if time.monotonic() - self._listed > LIST_SECONDS:
            self._known = self.partitions()
            self._listed = time.monotonic()
        asked = [TopicPartition(*partition) for partition in self._known]
        try:
            found = self._consumer.committed(asked, ANSWER_SECONDS)
        except RAISED as raised:
            raise self._failed("no broker returned the indexer's committed offsets", raised) from None
        return {
            (at.topic, at.partition): (at.offset, float(at.metadata or 0))
            for at in found
            if at.offset != OFFSET_INVALID
        }

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Commit the next offsets with the current time. Raises DependencyDown."""
        now = f"{time.time():.3f}"
        offsets = [TopicPartition(*partition, position, now) for partition, position in positions.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except RAISED as raised:
            raise self._failed("no broker accepted the indexer's offset commit", raised) from None

    def _failed(self, what: str, raised: object) -> TagbusError:
        # A denied group is not found, so the call times out; the authorization error arrives as a consumer message.
        message = self._consumer.poll(0)
        error = (message.error() if message is not None else None) or error_of(raised)
        kafka = self._settings.kafka.model_copy(update={"group": self._group})
        refused = classify(error, kafka, self._settings.topics.tags) if error.code() in REFUSED else None
        return refused or DependencyDown(f"{what}: {error.str()}")

    def resume(self) -> dict[Partition, int] | None:
        """The offsets to resume from, or None for a rebuild: never built, or so long ago that tombstones may be
        gone."""
        committed = self.committed()
        oldest = time.time() - self._settings.memory.tombstone_hours * 3600
        if not committed or any(at < oldest for _, at in committed.values()):
            return None
        return {partition: offset for partition, (offset, _) in committed.items()}

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()


async def indexer(settings: Settings, projection: Projection, memory: Memory, progress: Progress) -> Follower:
    """The writer of the shared memory. Run one: a second repeats the same writes, harmless but useless.

    It resumes from its progress, unless the store is empty: a server that lost its collections is refilled. A rebuild
    resets the progress first, so that no worker starting meanwhile tags with half a memory.
    """
    resume = await asyncio.to_thread(progress.resume)
    if resume is None or await memory.empty():
        resume = None
        await asyncio.to_thread(lambda: progress.commit(dict.fromkeys(progress.partitions(), 0)))

    async def tell(positions: Mapping[Partition, int]) -> None:
        await asyncio.to_thread(progress.commit, positions)

    return Follower(settings, projection, resume, tell)


class SharedMemory:
    """A worker's view of the shared memory: the start gate and the taxonomy version.

    The server does not publish changes. A worker with tag listeners reads `tags` itself, from the indexer's position;
    its taxonomy version is what both have applied.
    """

    def __init__(self, settings: Settings, progress: Progress, changes: TagChanges | None = None) -> None:
        """`changes` notifies the tag listeners; None without any."""
        self._settings = settings
        self._progress = progress
        self._changes = changes
        self._positions: dict[Partition, int] = {}
        self._ends: dict[Partition, int] = {}
        self._built = asyncio.Event()
        self._told: Follower | None = None
        self.ready = asyncio.Event()

    def taxonomy(self) -> dict[str, int]:
        """Applied offset of each partition of `tags`."""
        applied = {str(number): offset - 1 for (_, number), offset in sorted(self._of_tags().items())}
        if self._told is None:
            return applied
        notified = self._told.taxonomy()
        return {number: min(offset, notified.get(number, -1)) for number, offset in applied.items()}

    def applied(self) -> tuple[tuple[Partition, int], ...]:
        """The next offset of each partition of all memory topics, as committed by the indexer, and of `tags`, as
        applied to the listeners."""
        return (*self._positions.items(), *(() if self._told is None else self._told.applied()))

    def remaining(self) -> int:
        """Offsets that the indexer still has to apply before the gate opens."""
        return sum(max(0, end - self._positions.get(partition, 0)) for partition, end in self._ends.items())

    async def run(self) -> None:
        """Follow the indexer's progress until cancelled; the gate opens once it reaches the ends as of the start.

        Raises as Follower.run does, in a group if `changes` is set.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            await self._built.wait()
            if self._changes is not None:
                self._told = Follower(self._settings, self._changes, self._of_tags())
                tasks.create_task(self._told.run())
                await self._told.ready.wait()
            self.ready.set()

    async def _watch(self) -> None:
        delays = backoff(self._settings.retry)
        while True:
            try:
                await asyncio.to_thread(self._look)
                delays = backoff(self._settings.retry)
            except Retryable as error:
                log.warning("shared memory: %s", error)
                await asyncio.sleep(next(delays))
            if self._ends and all(self._positions.get(partition, 0) >= end for partition, end in self._ends.items()):
                self._built.set()
            await asyncio.sleep(POLL_SECONDS)

    def _look(self) -> None:
        self._ends = self._ends or self._progress.ends()
        self._positions = {partition: offset for partition, (offset, _) in self._progress.committed().items()}

    def _of_tags(self) -> dict[Partition, int]:
        tags = self._settings.topics.tags
        return {partition: offset for partition, offset in self._positions.items() if partition[0] == tags}
