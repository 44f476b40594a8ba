"""A worker's view of a memory that another process writes: the start gate, the taxonomy version, and its age."""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence

from tagbus.stream.config import Settings
from tagbus.stream.errors import MemoryLost, ReleaseMismatch, Retryable
from tagbus.stream.index.bootstrap import Follower, Offsets
from tagbus.stream.index.changes import MemoryChanges
from tagbus.stream.index.topics import Marks, MemoryTopics, beyond
from tagbus.stream.kafka.message import Partition
from tagbus.stream.memory.kinds import KINDS, TAGS
from tagbus.stream.memory.shared import BuildState, SharedStore, shared_stores
from tagbus.stream.memory.store import Memory
from tagbus.stream.retry import backoff

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
# How long a command waits for a writer that has not reached the ends yet: where exemplars keep coming, it never has at
# the first look.
SETTLE_SECONDS = 10.0


class SharedMemory:
    """Evaluates the states of the shared stores for a worker.

    The server does not publish changes. A worker with listeners itself reads the topics of their kinds, from the
    writer's positions; its taxonomy version covers the records that both have applied.
    """

    def __init__(self, settings: Settings, memories: Sequence[Memory], changes: MemoryChanges | None = None) -> None:
        """`memories`: all memories that the worker searches. `changes`: notifies the listeners; None without any."""
        self._settings = settings
        self._stores: list[SharedStore] = [store for one in memories for store in shared_stores(one).values()]
        self._changes = changes
        self._owner = ""
        self._marks: Marks = {}
        self._positions: Offsets = {}
        # The last time at which everything on the topics was applied, Unix seconds.
        self._current = 0.0
        # Why the gate is closed.
        self._reason = "the memory is not built yet"
        self._built = asyncio.Event()
        self._told: Follower | None = None
        self.ready = asyncio.Event()

    def taxonomy(self) -> dict[str, int]:
        """Applied offset of each partition of `tags`."""
        applied = {str(number): offset - 1 for (_, number), offset in sorted(self._of([TAGS.name]).items())}
        if self._told is None or self._changes is None or TAGS.name not in self._changes.empty():
            return applied
        notified = self._told.taxonomy()
        return {number: min(offset, notified.get(number, -1)) for number, offset in applied.items()}

    def applied(self) -> tuple[tuple[Partition, int], ...]:
        """The next offset of each partition of all memory topics, both as recorded by the writer and as applied to the
        listeners."""
        return (*self._positions.items(), *(() if self._told is None else self._told.applied()))

    def remaining(self) -> int:
        """Offsets that the writer still has to apply before the gate opens."""
        return sum(max(0, marks.high - self._positions.get(one, 0)) for one, marks in self._marks.items())

    def age(self) -> float:
        """Seconds since the memory last held everything on the memory topics."""
        return max(0.0, time.time() - self._current)

    def problem(self) -> str:
        """Why a worker must not tag with it; empty if it may."""
        if not self._built.is_set():
            return self._reason
        most = self._settings.memory.max_age_seconds
        if self.age() <= most:
            return ""
        return (
            f"the shared memory was last current {self.age():.0f} s ago, more than TAGBUS_MEMORY__MAX_AGE_SECONDS="
            f"{most:g}: `tagbus index` does not run, or does not keep up"
        )

    async def look(self, seconds: float = SETTLE_SECONDS) -> None:
        """Read the states, for commands: wait until the writer has reached the current ends, at most this many seconds.

        Raises as `run` does, and DependencyDown.
        """
        end = time.monotonic() + seconds
        with MemoryTopics(self._settings) as topics:
            await self._look(topics)
            while self._positions and not self._built.is_set() and self.remaining() and time.monotonic() < end:
                await asyncio.sleep(POLL_SECONDS)
                await self._look(topics)

    async def run(self) -> None:
        """Follow the writer's progress until cancelled; the gate opens once it has reached the ends at startup.

        Raises MemoryLost if a store is lost after that, ReleaseMismatch for a store of another release or installation,
        and as Follower.run does, in an exception group if `changes` is set.
        """
        with MemoryTopics(self._settings) as topics:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch(topics))
                await self._built.wait()
                if self._changes is not None:
                    self._told = Follower(self._settings, self._changes, self._of(self._changes.empty()))
                    tasks.create_task(self._told.run())
                    await self._told.ready.wait()
                self.ready.set()

    async def _watch(self, topics: MemoryTopics) -> None:
        delays = backoff(self._settings.retry)
        while True:
            try:
                await self._look(topics)
                delays = backoff(self._settings.retry)
            except Retryable as error:
                log.warning("shared memory: %s", error)
                self._reason = str(error)
                await asyncio.sleep(next(delays))
            await asyncio.sleep(POLL_SECONDS)

    async def _look(self, topics: MemoryTopics) -> None:
        if not self._owner:
            self._owner, self._marks = await asyncio.to_thread(lambda: (topics.owner(), topics.marks()))
        states = [await store.state() for store in self._stores]
        whole = [state for state in states if state is not None]
        for state in whole:
            _check_owner(state, self._owner)
        if len(whole) < len(states):
            self._on_lost()
            return
        if not self._built.is_set() and not all(state.complete for state in whole):
            self._reason = "`tagbus index` is reading everything again"
            return
        self._positions = {
            (state.topic, int(number)): offset for state in whole for number, offset in state.offsets.items()
        }
        self._current = min(state.current for state in whole)
        if not self._built.is_set() and await self._reached(topics):
            self._built.set()

    def _on_lost(self) -> None:
        self._reason = "the memory is not on the server: `tagbus index` builds it"
        if self._built.is_set():
            raise MemoryLost("the shared memory is no longer on the server; `tagbus index` rebuilds it")

    async def _reached(self, topics: MemoryTopics) -> bool:
        """Whether the writer has reached the ends at startup, of the topics that still exist."""
        self._reason = f"its writer has {self.remaining()} offsets left to apply"
        if beyond(self._positions, self._marks) and (
            wrong := beyond(self._positions, await asyncio.to_thread(topics.marks))
        ):
            self._reason = f"the memory is not used: {wrong}; restart `tagbus index`"
            return False
        return not self.remaining()

    def _of(self, kinds: Iterable[str]) -> Offsets:
        """The writer's positions in the topics of these kinds."""
        topics = {KINDS[kind].topic(self._settings.topics) for kind in kinds}
        return {partition: offset for partition, offset in self._positions.items() if partition[0] in topics}


async def require_own(settings: Settings, stores: Iterable[SharedStore]) -> None:
    """Raises ReleaseMismatch for a store of another installation, and as MemoryTopics and the stores do."""
    with MemoryTopics(settings) as topics:
        owner = await asyncio.to_thread(topics.owner)
    for store in stores:
        if (state := await store.state()) is not None:
            _check_owner(state, owner)


def _check_owner(state: BuildState, owner: str) -> None:
    if state.owner != owner:
        raise ReleaseMismatch(
            f"the shared memory of {state.topic} belongs to {state.owner}, but this is {owner}: give each "
            "installation its own TAGBUS_MEMORY__NAMESPACE"
        )
