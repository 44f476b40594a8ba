"""The writer of a shared memory: one process follows the memory topics and records its progress.

The applied offsets are recorded in the stores themselves (`memory/shared.py`).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from tagbus.stream import telemetry
from tagbus.stream.config import Settings
from tagbus.stream.index.apply import Projection
from tagbus.stream.index.bootstrap import Follower, Offsets, Report
from tagbus.stream.index.guard import held
from tagbus.stream.index.snapshot import origin
from tagbus.stream.index.topics import Marks, MemoryTopics
from tagbus.stream.memory.kinds import KINDS
from tagbus.stream.memory.shared import BuildState, SharedStore, shared_stores
from tagbus.stream.memory.store import Memory
from tagbus.stream.retry import until_answered

log = logging.getLogger(__name__)

# Interval of recording the state while only the time changes.
CURRENT_SECONDS = 5.0
# Interval of purging the traces of retired points, and how much longer than tombstones they are kept: a topic's last
# segment is not compacted before it is rolled, after a week by default, so until then a record may be read again
# without its tombstone.
FORGET_SECONDS = 3600.0
SEGMENT_SECONDS = 7 * 24 * 3600.0

T = TypeVar("T")


async def indexer(settings: Settings, projection: Projection, memories: Sequence[Memory]) -> Follower:
    """A follower of the memory topics that writes these shared memories, which `projection` fills.

    It resumes from the offsets in the stores, unless one of them was lost, was never completed, is older than the
    retention of tombstones, or is of topics that were created again. Then it reads everything again and removes
    points without a record; unchanged texts are not encoded again. Waits for a server that is down. Raises
    ReleaseMismatch for stores of another release or owner, and as MemoryTopics does.
    """
    with MemoryTopics(settings) as topics:
        owner, marks = await asyncio.to_thread(lambda: (topics.owner(), topics.marks()))
    writer = await _writer(settings, memories, owner)
    resume = await writer.begin(marks)
    return Follower(settings, projection, resume, writer.report)


async def rebuilder(
    settings: Settings, projection: Projection, memories: Sequence[Memory], *, encoded: bool
) -> Follower:
    """A follower that rebuilds these shared memories beside those that readers see, and then swaps them.

    `encoded`: whether every text is encoded again; otherwise the vectors of unchanged texts are reused. Raises as
    `indexer` does.
    """
    with MemoryTopics(settings) as topics:
        owner = await asyncio.to_thread(topics.owner)
    writer = await _writer(settings, memories, owner)
    await writer.rebuild()
    if not encoded:
        await writer.copy()
    return Follower(settings, projection, None, writer.report)


async def _writer(settings: Settings, memories: Sequence[Memory], owner: str) -> "_Writer":
    ids = (await asyncio.to_thread(origin, settings)).topics
    return _Writer(settings, [store for memory in memories for store in shared_stores(memory).items()], owner, ids)


class _Writer:
    """The states of all stores that one indexer writes."""

    def __init__(
        self, settings: Settings, stores: Sequence[tuple[str, SharedStore]], owner: str, ids: Mapping[str, str]
    ) -> None:
        """`ids`: of the topics, as they were before the reading began; empty if the broker has none."""
        self._settings = settings
        self._stores = [store for _, store in stores]
        self._topics = [KINDS[kind].topic(settings.topics) for kind, _ in stores]
        self._owner = owner
        self._ids = ids
        self._states: list[BuildState] = []
        # The time of the last purge of traces of retired points, Unix seconds.
        self._forgot = 0.0

    async def begin(self, marks: Marks) -> Offsets | None:
        """Become the writer of every store. Returns the offsets to resume from, or None to read everything."""
        self._states = [
            await self._asked(partial(store.begin, self._owner, topic))
            for store, topic in zip(self._stores, self._topics, strict=True)
        ]
        fits = [
            state.topic == topic and self._is_of_now(state) and _within(state, marks)
            for state, topic in zip(self._states, self._topics, strict=True)
        ]
        unusable = map(self._unusable, self._states, fits)
        reason = next(filter(None, unusable), None)
        if reason is None:
            return _least(self._states)
        log.info("index: reading everything: %s", reason)
        for number, state in enumerate(self._states):
            if fits[number]:
                reset = state.model_copy(update={"offsets": {}, "complete": False})
                await self._asked(partial(self._record, number, reset))
            else:
                # Its points are of another topic: readers must not see them turn into those of this one.
                begin = partial(self._stores[number].begin_anew, self._owner, self._topics[number])
                self._states[number] = await self._asked(begin)
        return None

    async def rebuild(self) -> None:
        """Become the writer of a new build of every store. Raises ReleaseMismatch for a store of another owner."""
        for store, topic in zip(self._stores, self._topics, strict=True):
            found = await self._asked(store.state)
            if found is not None and found.owner != self._owner:
                await self._asked(partial(store.begin, self._owner, topic))
            self._states.append(await self._asked(partial(store.rebuild, self._owner, topic)))

    async def copy(self) -> None:
        """Copy the points that readers see, if there are any."""
        for store, state in zip(self._stores, self._states, strict=True):
            if (seen := await self._asked(store.state)) is not None and seen.topic == state.topic:
                log.info("rebuild: %d points of %s are reused", await self._asked(store.copy), state.topic)

    async def report(self, report: Report) -> None:
        """Record the applied offsets. Raises DependencyDown."""
        now = time.time()
        for number, state in enumerate(self._states):
            offsets = {
                str(partition): at for (topic, partition), at in report.next.items() if topic == self._topics[number]
            }
            complete = state.complete or report.swept
            if complete > state.complete:
                await self._require_enough(self._stores[number], state)
            renewed = report.at_end and now - state.current > CURRENT_SECONDS
            current = now if renewed or complete > state.complete else state.current
            await self._record(
                number,
                state.model_copy(
                    update={
                        "offsets": offsets,
                        "complete": complete,
                        "current": current,
                        "topic_id": self._ids.get(state.topic, ""),
                    }
                ),
            )
        if report.swept and now - self._forgot > FORGET_SECONDS:
            await self._forget(now)

    async def _require_enough(self, store: SharedStore, state: BuildState) -> None:
        """Raises DependencyDown for a build of tags that would replace one with many more."""
        if state.topic != self._settings.topics.tags:
            return
        seen = await store.seen()
        wrong = held(await store.count(), seen, self._settings.memory.retire_share)
        telemetry.MEMORY_HELD.set(wrong is not None)
        if wrong is not None:
            raise wrong

    async def _forget(self, now: float) -> None:
        self._forgot = now
        kept = self._settings.memory.tombstone_hours * 3600 + SEGMENT_SECONDS
        for store in self._stores:
            await store.forget(now - kept)

    async def _record(self, number: int, state: BuildState) -> None:
        if state != self._states[number]:
            await self._stores[number].record(state)
            self._states[number] = state

    async def _asked(self, call: Callable[[], Awaitable[T]]) -> T:
        return await until_answered(call, self._settings.retry, "index")

    def _is_of_now(self, state: BuildState) -> bool:
        """Whether a state's topic was not created again since: its offsets may be in range by chance."""
        now = self._ids.get(state.topic, "")
        return not state.topic_id or not now or state.topic_id == now

    def _unusable(self, state: BuildState, fits: bool) -> str | None:  # noqa: FBT001 - one of the findings
        """Why a store cannot resume from its offsets; `fits`: whether its topic has them."""
        if not fits:
            return f"the store of {state.topic} was filled from another topic"
        if not state.complete:
            return f"the store of {state.topic} was never completed"
        hours = self._settings.memory.tombstone_hours
        if time.time() - state.current > hours * 3600:
            return f"the store of {state.topic} was last current over {hours:g} hours ago; tombstones may be deleted"
        return None


def _within(state: BuildState, marks: Marks) -> bool:
    """Whether the topic has all the offsets of a state."""
    for number, offset in state.offsets.items():
        found = marks.get((state.topic, int(number)))
        if found is None or not found.low <= offset <= found.high:
            return False
    return True


def _least(states: Sequence[BuildState]) -> Offsets:
    """The offsets from which every store gets its missing records: two stores may hold the records of one topic."""
    offsets: Offsets = {}
    for state in states:
        for number, offset in state.offsets.items():
            partition = (state.topic, int(number))
            offsets[partition] = min(offset, offsets.get(partition, offset))
    return offsets
