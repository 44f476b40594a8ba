"""Bootstrap memory: read its topics to their ends before any content, then follow them.

The reader is in no consumer group: each process that writes a memory needs every partition.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from confluent_kafka import Message

from tagbus.stream import telemetry
from tagbus.stream.config import Settings
from tagbus.stream.errors import MemoryLost, Retryable
from tagbus.stream.index.apply import Kept, MemoryRecord, Read
from tagbus.stream.index.guard import Guard, held
from tagbus.stream.index.newest import Newest
from tagbus.stream.kafka.follower import TopicFollower
from tagbus.stream.kafka.message import Partition, offset_of, partition_of, record_of
from tagbus.stream.kafka.reader import Chunk, Gap, Positions, Start, TopicReader
from tagbus.stream.memory.kinds import KINDS, TAGS
from tagbus.stream.memory.store import Source
from tagbus.stream.retry import until_answered

log = logging.getLogger(__name__)

# A chunk is encoded as one batch: large enough to sort by length, small enough to show progress.
CHUNK = 512
# The wait for the first record of a chunk, then for the others: records that trickle in are applied in batches, and
# these times bound the delay of a new tag.
WAIT_SECONDS = 0.2
FILL_SECONDS = 0.02
# Interval of progress reports while nothing arrives: they show that the follower is alive.
TELL_SECONDS = 30.0

Offsets = dict[Partition, int]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Report:
    """The applied positions: the next offset of each partition. `swept`: memory holds everything that was on the topics
    at the start, and nothing else. `at_end`: everything that was on them at the last read."""

    next: Mapping[Partition, int]
    swept: bool
    at_end: bool


Progress = Callable[[Report], Awaitable[None]]


class Applier(Protocol):
    """The sink of records: a Projection or MemoryChanges, whose methods document it."""

    def empty(self) -> Kept: ...

    async def apply(self, records: Sequence[MemoryRecord]) -> Kept: ...

    async def sweep(self, kept: Mapping[str, set[str]], read: Read | None = None) -> None: ...

    async def tags(self, keys: Collection[str]) -> tuple[int, int]: ...


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
        # The last time at which everything on the topics was applied, Unix seconds.
        self._current = 0.0
        # Protects a taxonomy that is emptied by mistake; and the number of tags before the full read.
        self._guard = Guard(settings.topics.tags, settings.memory.retire_share, projection.tags)
        self._before = 0
        # During a full read: the tombstones of tags, which are applied at its end.
        self._retired: dict[bytes, MemoryRecord] = {}
        # Until the gate opens: whatever comes then is newer.
        self._newest = Newest()
        self.ready = asyncio.Event()

    @property
    def held(self) -> str:
        """Why new records are held back; empty if they are applied."""
        return self._guard.problem

    def taxonomy(self) -> dict[str, int]:
        """Applied offset of each partition of `tags`: everything up to it is visible in memory. -1: nothing yet."""
        return {
            str(number): position - 1
            for (topic, number), position in sorted(self._positions.next.items())
            if topic == self._settings.topics.tags
        }

    def applied(self) -> tuple[tuple[Partition, int], ...]:
        """The next offset of each partition of all memory topics; it changes whenever a record is applied."""
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
            _, self._before = await self._waited(lambda: self._projection.tags(()))
            await self._follow(following)

    async def _follow(self, following: TopicFollower) -> None:
        loop = asyncio.get_running_loop()
        reported = loop.time()
        while True:
            if self._guard.full:
                await asyncio.sleep(WAIT_SECONDS)
                continue
            for chunk in await self._admitted(await following.read(CHUNK, WAIT_SECONDS, FILL_SECONDS)):
                await self._apply(chunk)
            if not self.ready.is_set() and self._positions.caught_up():
                await self._open()
            if loop.time() - reported > TELL_SECONDS:
                reported = loop.time()
                await self._tell()

    async def _admitted(self, chunk: Chunk) -> list[Chunk]:
        """The chunks that may be applied now. A full read retires tags at its end, when the number left is known."""
        if self._resume is None and not self.ready.is_set():
            return [chunk]
        self._guard.take(chunk)
        return await self._waited(self._guard.released)

    async def _open(self) -> None:
        if self._resume is None:
            await self._waited(self._sweep)
        self._kept, self._retired = self._projection.empty(), {}
        self._newest.forget()
        if self._progress is not None:
            # No reader may see the open gate before the applied records.
            await self._waited(partial(self._progress, self._report(swept=True)))
        self.ready.set()
        log.info("memory is complete: start gate open, taxonomy=%s", self.taxonomy())

    async def _sweep(self) -> None:
        if TAGS.name in self._kept:
            wrong = held(len(self._kept[TAGS.name]), self._before, self._settings.memory.retire_share)
            telemetry.MEMORY_HELD.set(wrong is not None)
            if wrong is not None:
                raise wrong
        if self._retired:
            await self._projection.apply([*self._retired.values()])
        await self._projection.sweep(self._kept, self._read())

    async def _apply(self, chunk: Chunk) -> None:
        """Apply one chunk; positions advance only once all of it is in memory."""
        records = [self._record(message) for message in chunk.messages]
        if not self.ready.is_set():
            records = self._newest.among(records)
        if records:
            whole = self._resume is not None or self.ready.is_set()
            # Applying records again is harmless; skipping them would lose tags.
            kept = await self._waited(lambda: self._projection.apply(records if whole else _staying(records)))
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
                self._retire(item, item.record.key)
        for kind, keys in kept.items():
            self._kept[kind].update(keys)

    def _retire(self, item: MemoryRecord, key: bytes) -> None:
        if item.kind == TAGS.name and item.record.value is None:
            self._retired[key] = item
        elif item.kind == TAGS.name:
            self._retired.pop(key, None)

    async def _waited(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of a call, retried while a dependency is down."""
        return await until_answered(call, self._settings.retry, "memory")

    async def _tell(self) -> None:
        """Report progress; if a report fails, the next one covers it."""
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
        """The offsets up to which each kind's topic is read."""
        read: dict[str, dict[int, int]] = {}
        for (topic, number), offset in self._positions.next.items():
            read.setdefault(self._kinds[topic], {})[number] = offset
        return read


def _staying(records: Sequence[MemoryRecord]) -> list[MemoryRecord]:
    """The records, except those of tags that the last record of the key retires."""
    last = {(item.kind, item.record.key): item.record.value for item in records}
    return [item for item in records if item.kind != TAGS.name or last[item.kind, item.record.key] is not None]


def _lost(gap: Gap) -> MemoryLost:
    topic, number = gap.partition
    return MemoryLost(
        f"{topic}:{number} has {gap.found}, but memory was built up to {gap.offset}; restart to rebuild the memory"
    )
