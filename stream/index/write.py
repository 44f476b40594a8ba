"""A memory that workers share, in a Qdrant server: one indexer writes it, workers wait until it has caught up.

How far the indexer has got stands in Kafka as committed offsets of a group that nobody joins, each with the time of
its commit as metadata. That is the start gate and the taxonomy version of every worker.
"""

import asyncio
import logging
import math
import time
from collections.abc import Mapping

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException, TopicPartition

from tagbus.stream.config import Settings
from tagbus.stream.errors import DependencyDown, Retryable, TagbusError
from tagbus.stream.index.apply import Projection
from tagbus.stream.index.bootstrap import GROWTH_SECONDS, METADATA_SECONDS, Follower, Place, partitions, watermarks
from tagbus.stream.index.changes import TagChanges
from tagbus.stream.kafka import refusal
from tagbus.stream.memory.kinds import KINDS
from tagbus.stream.memory.store import Memory
from tagbus.stream.retry import backoff

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5


class Progress:
    """The applied offsets of the shared memory of one release."""

    def __init__(self, settings: Settings, release: str) -> None:
        self._settings = settings
        self._group = f"{settings.kafka.group}-index-{release}"
        self._consumer = Consumer(
            {
                **settings.kafka.client(),
                # What fails for good is an error of the call; librdkafka's own lines would be 20 a second.
                "log_level": 2,
                "group.id": self._group,
                "enable.auto.commit": False,
            }
        )
        self._known: list[Place] = []
        self._listed = -math.inf

    def places(self) -> list[Place]:
        """Every partition of the memory topics."""
        return [
            place
            for kind in KINDS.values()
            for place in partitions(self._settings.kafka, self._consumer, kind.topic(self._settings.topics))
        ]

    def ends(self) -> dict[Place, int]:
        """High watermarks as they are now."""
        return {place: watermarks(self._settings.kafka, self._consumer, place)[1] for place in self.places()}

    def committed(self) -> dict[Place, tuple[int, float]]:
        """Next offset and time of commit (Unix seconds) of each partition that has any.

        Workers ask every 0.5 s; the partitions are listed every 30 s, for topics seldom grow.
        """
        if time.monotonic() - self._listed > GROWTH_SECONDS:
            self._known = self.places()
            self._listed = time.monotonic()
        asked = [TopicPartition(*place) for place in self._known]
        try:
            found = self._consumer.committed(asked, METADATA_SECONDS)
        except KafkaException as error:
            raise self._failed("no broker told how far the memory is built", error) from None
        return {
            (at.topic, at.partition): (at.offset, float(at.metadata or 0))
            for at in found
            if at.offset != OFFSET_INVALID
        }

    def commit(self, positions: Mapping[Place, int]) -> None:
        """Record the next offsets as of now. Raises DependencyDown."""
        now = f"{time.time():.3f}"
        offsets = [TopicPartition(*place, position, now) for place, position in positions.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            raise self._failed("no broker took how far the memory is built", error) from None

    def _failed(self, what: str, exception: KafkaException) -> TagbusError:
        # A group that is refused is not found, so the call times out; the refusal is a message of the consumer.
        told = self._consumer.poll(0)
        error = (told.error() if told is not None else None) or exception.args[0]
        kafka = self._settings.kafka.model_copy(update={"group": self._group})
        return refusal.denied(error, kafka, "") or DependencyDown(f"{what}: {error.str()}")

    def resume(self) -> dict[Place, int] | None:
        """Where to go on, or None for a rebuild: never built, or so long ago that tombstones may be gone."""
        committed = self.committed()
        oldest = time.time() - self._settings.memory.tombstone_hours * 3600
        if not committed or any(at < oldest for _, at in committed.values()):
            return None
        return {place: offset for place, (offset, _) in committed.items()}

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()


async def indexer(settings: Settings, projection: Projection, memory: Memory, progress: Progress) -> Follower:
    """What writes the shared memory. Run one: a second writes the same again, which is harmless and useless.

    It goes on from its progress, unless the store is empty: a server that lost its collections is filled anew. A
    rebuild takes the progress back first, so that no worker that starts meanwhile tags by half a memory.
    """
    resume = await asyncio.to_thread(progress.resume)
    if resume is None or await memory.empty():
        resume = None
        await asyncio.to_thread(lambda: progress.commit(dict.fromkeys(progress.places(), 0)))

    async def tell(positions: Mapping[Place, int]) -> None:
        await asyncio.to_thread(progress.commit, positions)

    return Follower(settings, projection, resume, tell)


class SharedMemory:
    """What a worker sees of the shared memory: the start gate and the taxonomy version.

    The server does not tell what changes in it. A worker that keeps something of its own of the tags reads `tags`
    itself, from where the indexer was; its taxonomy version is what both have applied.
    """

    def __init__(self, settings: Settings, progress: Progress, changes: TagChanges | None = None) -> None:
        """`changes`: what is to be told of tags, where anything is."""
        self._settings = settings
        self._progress = progress
        self._changes = changes
        self._positions: dict[Place, int] = {}
        self._ends: dict[Place, int] = {}
        self._built = asyncio.Event()
        self._told: Follower | None = None
        self.ready = asyncio.Event()

    def taxonomy(self) -> dict[str, int]:
        """Applied offset of each partition of `tags`."""
        applied = {str(number): offset - 1 for (_, number), offset in sorted(self._of_tags().items())}
        if self._told is None:
            return applied
        told = self._told.taxonomy()
        return {number: min(offset, told.get(number, -1)) for number, offset in applied.items()}

    def applied(self) -> tuple[tuple[Place, int], ...]:
        """The next offset of each partition of all memory topics, as the indexer has recorded them, and of those of
        `tags` that listeners were told of."""
        return (*self._positions.items(), *(() if self._told is None else self._told.applied()))

    def remaining(self) -> int:
        """Offsets that the indexer still has to apply before the gate opens."""
        return sum(max(0, end - self._positions.get(place, 0)) for place, end in self._ends.items())

    async def run(self) -> None:
        """Follow the indexer's progress until cancelled; the gate opens when it has reached today's ends.

        Raises as Follower.run does, in a group, where `changes` are told.
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
            if self._ends and all(self._positions.get(place, 0) >= end for place, end in self._ends.items()):
                self._built.set()
            await asyncio.sleep(POLL_SECONDS)

    def _look(self) -> None:
        self._ends = self._ends or self._progress.ends()
        self._positions = {place: offset for place, (offset, _) in self._progress.committed().items()}

    def _of_tags(self) -> dict[Place, int]:
        return {place: offset for place, offset in self._positions.items() if place[0] == self._settings.topics.tags}
