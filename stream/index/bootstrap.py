"""Bootstrap: read the memory topics to their end before any content, then follow them.

The reader is in no consumer group: each process that writes a memory needs every partition.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from confluent_kafka import Message

from tagbus.stream import telemetry
from tagbus.stream.config import Settings
from tagbus.stream.errors import MemoryLost, Retryable
from tagbus.stream.index.apply import Kept, MemoryRecord, Read
from tagbus.stream.kafka.follower import TopicFollower
from tagbus.stream.kafka.message import Partition, offset_of, partition_of, record_of
from tagbus.stream.kafka.reader import Chunk, Gap, Positions, Start, TopicReader
from tagbus.stream.memory.kinds import KINDS
from tagbus.stream.memory.store import Source
from tagbus.stream.retry import until_answered

log = logging.getLogger(__name__)

# A chunk is encoded as one batch: large enough to sort by length, small enough that progress shows.
CHUNK = 512
# Wait for the first record of a chunk, and again for the others: records that trickle in are applied in batches.
WAIT_SECONDS = 0.2
# Interval of progress reports while nothing arrives: they show that the follower is alive.
TELL_SECONDS = 30.0

Offsets = dict[Partition, int]


@dataclass(frozen=True, slots=True)
class Report:
    """What was applied: the next offset of each partition. `swept`: everything that the topics held at the start, and
    nothing else. `at_end`: everything that they held when they were last read."""

    next: Mapping[Partition, int]
    swept: bool
    at_end: bool


Progress = Callable[[Report], Awaitable[None]]


class Applier(Protocol):
    """The sink of records: a Projection or MemoryChanges, whose methods document it."""

    def empty(self) -> Kept: ...

    async def apply(self, records: Sequence[MemoryRecord]) -> Kept: ...

    async def sweep(self, kept: Mapping[str, set[str]], read: Read | None = None) -> None: ...


class Follower:
    """Reads the memory topics into a projection; `ready` is set once the start gate may open."""

    def __init__(
        self,
        settings: Settings,
        projection: Applier,
        resume: Mapping[Partition, int] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """`resume`: next offsets to resume from. Without them everything is read, and keys not seen are swept from
        memory.

        `progress` receives a report after each applied chunk, when the gate opens, and every 30 s.
        """
        self._settings = settings
        self._projection = projection
        self._resume = resume
        self._progress = progress
        self._kinds = {KINDS[kind].topic(settings.topics): kind for kind in projection.empty()}
        # Applied positions; and, until the gate opens, the keys that the topics hold.
        self._positions = Positions()
        self._kept = projection.empty()
        # When everything on the topics was applied last, Unix seconds.
        self._current = 0.0
        self.ready = asyncio.Event()

    def taxonomy(self) -> dict[str, int]:
        """Applied offset of each partition of `tags`: everything up to it shows in memory. -1: nothing yet."""
        return {
            str(number): position - 1
            for (topic, number), position in sorted(self._positions.next.items())
            if topic == self._settings.topics.tags
        }

    def applied(self) -> tuple[tuple[Partition, int], ...]:
        """The next offset of each partition of all memory topics; it differs if anything was applied since."""
        return tuple(self._positions.next.items())

    def remaining(self) -> int:
        """Offsets left to read before the gate opens."""
        return self._positions.remaining()

    def age(self) -> float:
        """Seconds since everything on the memory topics was applied."""
        return max(0.0, time.time() - self._current)

    async def run(self) -> None:
        """Read to the end, open the gate, follow until cancelled.

        Raises TopicMissing, UserError if a right is missing, DependencyDown if no broker answers at the start,
        MemoryLost if offsets are out of range.
        """
        optional = {topic for topic, kind in self._kinds.items() if KINDS[kind].optional}
        reader = TopicReader(self._settings.kafka, _lost, optional)
        start: Start = "beginning" if self._resume is None else self._resume
        async with TopicFollower(reader, tuple(self._kinds), start) as following:
            self._positions = following.positions
            await self._follow(following)

    async def _follow(self, following: TopicFollower) -> None:
        loop = asyncio.get_running_loop()
        reported = loop.time()
        while True:
            await self._apply(await following.read(CHUNK, WAIT_SECONDS, WAIT_SECONDS))
            if not self.ready.is_set() and self._positions.caught_up():
                await self._open()
            if loop.time() - reported > TELL_SECONDS:
                reported = loop.time()
                await self._tell()

    async def _open(self) -> None:
        if self._resume is None:
            sweep = partial(self._projection.sweep, self._kept, self._read())
            await until_answered(sweep, self._settings.retry, "memory")
        self._kept = self._projection.empty()
        if self._progress is not None:
            # No reader may see the gate open before it can see what was applied.
            opened = partial(self._progress, self._report(swept=True))
            await until_answered(opened, self._settings.retry, "memory")
        self.ready.set()
        log.info("memory is complete: start gate open, taxonomy=%s", self.taxonomy())

    async def _apply(self, chunk: Chunk) -> None:
        """Apply one chunk; positions advance only once all of it is in memory."""
        records = [self._record(message) for message in chunk.messages]
        if records:
            kept = await self._until_applied(records)
            if not self.ready.is_set():
                self._remember(records, kept)
        self._positions = chunk.positions
        if self._at_end():
            self._current = time.time()
        if records:
            telemetry.MEMORY_APPLIED.inc(len(records))
            await self._tell()

    def _remember(self, records: Sequence[MemoryRecord], kept: Kept) -> None:
        for item in records:
            if item.record.key is not None:
                self._kept[item.kind].discard(item.record.key.decode(errors="replace"))
        for kind, keys in kept.items():
            self._kept[kind].update(keys)

    async def _until_applied(self, records: Sequence[MemoryRecord]) -> Kept:
        """Wait while a dependency is down: applying again is harmless, and skipping would lose tags."""
        return await until_answered(lambda: self._projection.apply(records), self._settings.retry, "memory")

    async def _tell(self) -> None:
        """Report progress; the next report covers one that fails."""
        if self._progress is None:
            return
        try:
            await self._progress(self._report(swept=self.ready.is_set()))
        except Retryable as error:
            log.warning("memory: %s", error)

    def _report(self, *, swept: bool) -> Report:
        return Report(self._positions.next, swept, self._at_end())

    def _at_end(self) -> bool:
        return self._positions.at_end >= self._positions.next.keys()

    def _record(self, message: Message) -> MemoryRecord:
        topic, number = partition_of(message)
        offset = offset_of(message)
        source = Source(number, offset, message.timestamp()[1])
        return MemoryRecord(self._kinds[topic], record_of(message), f"{topic}:{number}:{offset}", source)

    def _read(self) -> Read:
        """Up to where each kind's topic is read."""
        read: dict[str, dict[int, int]] = {}
        for (topic, number), offset in self._positions.next.items():
            read.setdefault(self._kinds[topic], {})[number] = offset
        return read


def _lost(gap: Gap) -> MemoryLost:
    topic, number = gap.partition
    return MemoryLost(
        f"{topic}:{number} has {gap.found}, memory was built up to {gap.offset}; restart to rebuild the memory"
    )
