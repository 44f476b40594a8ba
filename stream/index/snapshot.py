"""The snapshot of a release's memory that the builder saves for workers: points, and the offsets to resume from.

    NAME/memory/current.json                    the name of the current folder beside it, its offsets, its topics
    NAME/memory/20260131T093000-1f3a/tags       a folder for each kind, as ExactStore.save writes it

current.json is replaced atomically, so a reader sees either the old memory or the new one. The previous folder is kept
until the next snapshot but one, for workers that are still reading it.
"""

import asyncio
import logging
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tagbus.stream.config import Settings
from tagbus.stream.errors import MemoryLost, TagbusError, UserError, shorten
from tagbus.stream.index.apply import Projection
from tagbus.stream.index.bootstrap import Follower, Offsets, Progress
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.message import Partition
from tagbus.stream.kafka.metadata import identities
from tagbus.stream.memory import saved
from tagbus.stream.memory.checks import decode
from tagbus.stream.memory.exact import ExactStore
from tagbus.stream.memory.kinds import KINDS
from tagbus.stream.memory.store import Memory, Point, Store
from tagbus.stream.retry import until_answered

log = logging.getLogger(__name__)

T = TypeVar("T")

CURRENT: Final = "current.json"


class Position(BaseModel):
    """The next offset of one partition."""

    model_config = ConfigDict(frozen=True)

    topic: str
    partition: int = Field(ge=0)
    offset: int = Field(ge=0)


class Origin(BaseModel):
    """The topics that a memory was read from. `topics`: the id of each by its name, empty if the broker has none."""

    model_config = ConfigDict(frozen=True)

    cluster: str
    topics: Mapping[str, str]

    def difference(self, now: "Origin") -> str:
        """Why offsets in these topics mean nothing in those of now; empty if they do."""
        if self.cluster != now.cluster:
            return f"it is of cluster {shorten(self.cluster)}, this is {shorten(now.cluster)}"
        for topic, one in self.topics.items():
            if (found := now.topics.get(topic)) is None:
                return f"it holds topic {shorten(topic)}, which is not there"
            if one and found and one != found:
                return f"topic {topic} was created again: its id is {shorten(found)}, it was {shorten(one)}"
        return ""


class Current(BaseModel):
    """current.json."""

    model_config = ConfigDict(frozen=True)

    release: str
    folder: str = Field(pattern=r"^[0-9A-Za-z-]+$")
    # Up to the year 9999: `release list` shows it as a date.
    time: float = Field(ge=0, le=253_402_300_799, description="when the offsets were taken, Unix seconds")
    positions: tuple[Position, ...]
    origin: Origin

    @property
    def offsets(self) -> Offsets:
        """The next offsets by topic and partition."""
        return {(one.topic, one.partition): one.offset for one in self.positions}


def current(folder: Path) -> Current | None:
    """Read `folder`'s current.json; None if it is missing or unreadable."""
    path = folder / CURRENT
    try:
        return Current.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("%s cannot be used: %s", path, shorten(str(error), 200))
        return None


def origin(settings: Settings, known: Origin | None = None) -> Origin:
    """The memory topics of now, but those in `known` as they are there. Blocks; raises as `identities` does."""
    client = clients.quiet_admin(settings.kafka, lambda _: None)
    cluster, topics = identities(client, settings.kafka, [kind.topic(settings.topics) for kind in KINDS.values()])
    return Origin(cluster=cluster, topics=topics if known is None else {**topics, **known.topics})


async def save(folder: Path, memory: Memory, positions: Mapping[Partition, int], of: Origin) -> None:
    """Write the points of exact stores. `positions` must be taken before the call: later records are applied again,
    which is harmless; `of` before the reading began, or it could be of topics that were created since. Raises UserError
    if the folder cannot be written."""
    taken = time.time()
    name = f"{datetime.fromtimestamp(taken, UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:4]}"
    try:
        for kind, store in memory.stores.items():
            if not isinstance(store, ExactStore):
                raise TypeError(f"{type(store).__name__} persists its points itself")
            await store.save(folder / name / kind)
        await asyncio.to_thread(_point, folder, name, memory.release, taken, positions, of)
    except OSError as error:
        raise UserError(f"{folder} cannot store the memory: {error.strerror}") from None


def _point(folder: Path, name: str, release: str, taken: float, positions: Mapping[Partition, int], of: Origin) -> None:
    before = current(folder)
    placed = tuple(Position(topic=topic, partition=number, offset=at) for (topic, number), at in positions.items())
    draft = folder / f"{CURRENT}.new"
    made = Current(release=release, folder=name, time=taken, positions=placed, origin=of)
    draft.write_text(made.model_dump_json() + "\n", encoding="utf-8")
    draft.replace(folder / CURRENT)
    kept = {name, *([] if before is None else [before.folder])}
    for old in folder.iterdir():
        if old.is_dir() and old.name not in kept:
            shutil.rmtree(old, ignore_errors=True)


async def load(
    folder: Path, memories: Sequence[Memory], settings: Settings, ask: Callable[[Settings], Origin] = origin
) -> Offsets | None:
    """Fill the first memory, if it is empty, from the builder's snapshot. Returns the offsets to resume from; None:
    read everything.

    Tombstones may be compacted away after memory.tombstone_hours, so with an older snapshot the memory is filled from
    it and everything is read again: nothing is encoded twice, and points no longer on the topics are swept. The same
    applies with memories of other encoders, which are not in the snapshot. A snapshot of other topics is not used: its
    points are theirs, and its offsets may be in range here by chance. `ask` replaces the broker in tests; raises as
    `origin` does.
    """
    memory = memories[0]
    found = current(folder)
    if found is None or not await _waiting(memory.empty, settings):
        return None
    if wrong := found.origin.difference(await asyncio.to_thread(ask, settings)):
        log.warning("the snapshot in %s is not used, reading and encoding everything: %s", folder, wrong)
        return None
    try:
        for kind, store in memory.stores.items():
            await _waiting(partial(_pour, folder / found.folder / kind, store), settings)
    except (TagbusError, ValueError) as error:
        log.warning("the snapshot in %s is not used, reading and encoding everything: %s", folder, error)
        return None
    log.info("memory of %s loaded from %s", found.release, folder / found.folder)
    topics = {topic for topic, _ in found.offsets}
    whole = {KINDS[kind].topic(settings.topics): KINDS[kind].optional for kind in memory.stores}
    needed = {topic for topic, optional in whole.items() if not optional}
    old = found.time < time.time() - settings.memory.tombstone_hours * 3600
    usable = not old and len(memories) == 1 and needed <= topics <= whole.keys()
    return found.offsets if usable else None


async def _waiting(call: Callable[[], Awaitable[T]], settings: Settings) -> T:
    """Retry while a store does not answer: reading and encoding everything would take longer."""
    return await until_answered(call, settings.retry, "memory")


async def _pour(folder: Path, store: Store) -> None:
    if isinstance(store, ExactStore):
        # Copied as stored, with the index: building one of a million points takes ten minutes.
        await store.take(folder)
        return
    batches = saved.read(folder, store.release, store.dimension)
    while batch := await asyncio.to_thread(next, batches, None):
        whole = zip(batch.keys, batch.vectors, batch.bodies, strict=True)
        await store.upsert([Point(key, vector, decode(body)) for key, vector, body in whole])


@asynccontextmanager
async def caught_up(
    folder: Path | None,
    settings: Settings,
    projection: Projection,
    memories: Sequence[Memory],
    tell: Progress | None = None,
) -> AsyncIterator["asyncio.Task[None]"]:
    """Keep a memory complete while the block runs, loaded from `folder` first; yields the follower's task.

    Raises as Follower.run does.
    """
    resume = None if folder is None else await load(folder, memories, settings)
    async with AsyncExitStack() as stack:
        try:
            task = await stack.enter_async_context(following(Follower(settings, projection, resume, tell)))
        except MemoryLost as lost:
            if resume is None:
                raise
            log.warning("the snapshot cannot be used, reading everything: %s", lost)
            task = await stack.enter_async_context(following(Follower(settings, projection, None, tell)))
        yield task


@asynccontextmanager
async def following(follower: Follower) -> AsyncIterator["asyncio.Task[None]"]:
    """Run a follower while the block runs; the block starts once it has caught up. Raises as Follower.run does."""
    task = asyncio.create_task(follower.run())
    waiting = asyncio.create_task(follower.ready.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield task
    finally:
        for one in (task, waiting):
            one.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)
