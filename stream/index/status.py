"""The status of a kept memory: its points, and how far it is behind the ends of its topics."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from tagbus.stream.config import Settings
from tagbus.stream.encoder.release import Release
from tagbus.stream.errors import TagbusError
from tagbus.stream.index import snapshot
from tagbus.stream.index.topics import Marks, MemoryTopics, beyond
from tagbus.stream.memory import saved
from tagbus.stream.memory.checks import Description
from tagbus.stream.memory.kinds import KINDS
from tagbus.stream.memory.shared import BuildState, SharedStore, shared_stores
from tagbus.stream.memory.store import Memory


class KindStatus(BaseModel):
    """The status of one kind of a memory. Null: the store does not know it."""

    model_config = ConfigDict(frozen=True)

    kind: str
    place: str = Field(description="the build, or the folder")
    points: int
    complete: bool | None = Field(default=None, description="read to the end once, and retired points removed")
    behind: int | None = Field(default=None, description="offsets from the applied ones to the ends of the topic")
    age_seconds: float | None = Field(default=None, description="since everything on the topic was last applied")
    problem: str = Field(default="", description="why workers do not use it; empty if they do")
    differences: tuple[str, ...] = Field(default=(), description="settings that differ from those it was made with")


async def of_shared(settings: Settings, memory: Memory) -> list[KindStatus]:
    """The stores on a server. Raises as MemoryTopics and the stores do."""
    owner, marks = await asyncio.to_thread(_topics, settings)
    now = await asyncio.to_thread(snapshot.origin, settings)
    return [await _of_store(kind, store, _Now(owner, marks, now)) for kind, store in shared_stores(memory).items()]


async def of_local(memory: Memory, folder: Path) -> list[KindStatus]:
    """The stores in a folder; their process reads the topics again when it starts."""
    return [
        KindStatus(kind=kind, place=str(folder / kind), points=await store.count())
        for kind, store in memory.stores.items()
    ]


async def of_snapshot(settings: Settings, folder: Path, release: Release) -> list[KindStatus]:
    """The snapshot in a release's folder; empty if there is none."""
    found = snapshot.current(folder)
    if found is None:
        return []
    _, marks = await asyncio.to_thread(_topics, settings)
    now = await asyncio.to_thread(snapshot.origin, settings)
    wrong = found.origin.difference(now) or beyond(found.offsets, marks)
    statuses = []
    for name, kind in KINDS.items():
        place = folder / found.folder / name
        topic = kind.topic(settings.topics)
        points, damage = await asyncio.to_thread(_points, place, release)
        statuses.append(
            KindStatus(
                kind=name,
                place=str(place),
                points=points,
                complete=not damage,
                problem=wrong or damage,
                behind=_behind(topic, {number: at for (of, number), at in found.offsets.items() if of == topic}, marks),
                age_seconds=max(0.0, time.time() - found.time),
            )
        )
    return statuses


def _points(folder: Path, release: Release) -> tuple[int, str]:
    """The number of a saved store's points, and why it cannot be used, as far as the first points tell."""
    try:
        next(saved.read(folder, release.name, release.dimension), None)
        return Description.read(folder).count or 0, ""
    except TagbusError as error:
        return 0, str(error)


@dataclass(frozen=True, slots=True)
class _Now:
    """The topics as they are."""

    owner: str
    marks: Marks
    origin: snapshot.Origin


async def _of_store(kind: str, store: SharedStore, now: _Now) -> KindStatus:
    state = await store.state()
    if state is None:
        return KindStatus(kind=kind, place="missing", points=0, complete=False)
    offsets = {int(number): at for number, at in state.offsets.items()}
    return KindStatus(
        kind=kind,
        place=state.build,
        points=await store.count(),
        complete=state.complete,
        behind=_behind(state.topic, offsets, now.marks),
        age_seconds=max(0.0, time.time() - state.current) if state.current else None,
        differences=tuple(await store.differences()),
        problem=_problem(state, offsets, now),
    )


def _problem(state: BuildState, offsets: Mapping[int, int], now: _Now) -> str:
    if state.owner != now.owner:
        return f"it belongs to {state.owner}, this is {now.owner}"
    of = snapshot.Origin(cluster=now.origin.cluster, topics={state.topic: state.topic_id} if state.topic_id else {})
    positions = {(state.topic, number): at for number, at in offsets.items()}
    return beyond(positions, now.marks) or of.difference(now.origin)


def _behind(topic: str, offsets: Mapping[int, int], marks: Marks) -> int:
    return sum(
        max(0, found.high - max(found.low, offsets.get(number, 0)))
        for (of, number), found in marks.items()
        if of == topic
    )


def _topics(settings: Settings) -> tuple[str, Marks]:
    with MemoryTopics(settings) as topics:
        return topics.owner(), topics.marks()
