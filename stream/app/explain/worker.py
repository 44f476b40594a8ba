"""The tagger as a worker runs it: the release in force, its calibrations, and memory from the topics or the server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tagbus.stream.app import assemble
from tagbus.stream.app.assemble import Plan, TaggingStack
from tagbus.stream.app.filling import save_memories
from tagbus.stream.app.places import folders
from tagbus.stream.app.releases import recorded
from tagbus.stream.app.releases.loaded import fitting
from tagbus.stream.config import Settings
from tagbus.stream.contract.release import Curve
from tagbus.stream.errors import DependencyDown, TopicMissing
from tagbus.stream.index import snapshot
from tagbus.stream.index.bootstrap import Follower
from tagbus.stream.index.releases import Releases
from tagbus.stream.index.shared import SharedMemory
from tagbus.stream.tagger import Tagger


@asynccontextmanager
async def as_worker(settings: Settings, cache: Path | None, plan: Plan) -> AsyncIterator[tuple[TaggingStack, Tagger]]:
    """The stack and tagger in force now. A memory that is not on a server is read from the topics into this process,
    with the embeddings of the builder's snapshot or, in `cache`, of an earlier run.

    Raises as `assemble.opened` does, TopicMissing for a memory topic, DependencyDown if no broker answers or the shared
    memory is not complete.
    """
    releases = _releases(settings)
    name = recorded.in_force(settings, releases)
    own = recorded.own(settings, name, releases.records.get(name))
    curves = releases.calibrations_of(name)
    opened = _shared(own, plan, curves) if own.memory.kind == "server" else _read(own, cache, plan, curves)
    async with opened as found:
        yield found


def _releases(settings: Settings) -> Releases:
    try:
        return recorded.read_releases(settings)
    except TopicMissing:
        return Releases()


@asynccontextmanager
async def _shared(
    settings: Settings, plan: Plan, curves: dict[str, Curve]
) -> AsyncIterator[tuple[TaggingStack, Tagger]]:
    async with assemble.opened(settings, plan) as stack:
        shared = SharedMemory(settings, stack.memories)
        await shared.look()
        if problem := shared.problem():
            raise DependencyDown(problem)
        yield stack, stack.tagger(fitting(stack, curves), shared.taxonomy)


@asynccontextmanager
async def _read(
    settings: Settings, cache: Path | None, plan: Plan, curves: dict[str, Curve]
) -> AsyncIterator[tuple[TaggingStack, Tagger]]:
    async with assemble.in_process(settings, cache, plan) as stack:
        tagger = stack.tagger(fitting(stack, curves))
        if (folder := folders.snapshot_folder(settings, stack.release.name)) is not None:
            # Only its embeddings are used, not its offsets: unchanged texts are not encoded again.
            await snapshot.load(folder, stack.memories, settings)
        follower = Follower(settings, stack.projection())
        async with snapshot.following(follower):
            if cache is not None:
                await save_memories(cache, stack.memories)
            tagger = stack.tagger(fitting(stack, curves), follower.taxonomy)
            yield stack, tagger
