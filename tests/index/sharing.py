"""What the tests of a shared memory share: its stores in one Qdrant, writers, and workers that watch them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from qdrant_client import AsyncQdrantClient

from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Tag
from tagbus.stream.index.apply import Projection
from tagbus.stream.index.bootstrap import Follower
from tagbus.stream.index.changes import MemoryChanges
from tagbus.stream.index.indexer import indexer
from tagbus.stream.index.shared import SharedMemory
from tagbus.stream.memory import Carried, Memory, memory_of
from tagbus.stream.memory.qdrant.client import Server
from tagbus.stream.memory.qdrant.collections import CollectionSpec
from tagbus.stream.memory.qdrant.server import ServerStore
from tagbus.stream.memory.shared import BuildState, shared_stores
from tests.conftest import Broker
from tests.index.parts import Watched, at, encoder, running
from tests.support import produce

SECONDS = 120.0


async def opened(qdrant: AsyncQdrantClient) -> Memory:
    """The stores of the shipped release in this Qdrant, as `open_memory` makes them."""
    release = encoder().release

    async def store(kind: str, carried: Carried) -> ServerStore:
        return ServerStore(
            Server(qdrant, "memory"), CollectionSpec("tagbus", release.name, kind, release.dimension), carried
        )

    return await memory_of(store)


def settings_at(kafka: Broker, names: dict[str, str], **more: float) -> Settings:
    base = at(kafka.address, names)
    return base.model_copy(update={"memory": base.memory.model_copy(update=more)})


def publish(kafka: Broker, topic: str, count: int, first: int = 0) -> None:
    records = [encode_record(Tag(id=f"t{n}", name=f"subject {n}")) for n in range(first, first + count)]
    produce(kafka.address, topic, [(one.key, one.value, []) for one in records])


def retire(kafka: Broker, topic: str, key: str) -> None:
    produce(kafka.address, topic, [(key.encode(), None, [])])


async def writing(settings: Settings, qdrant: AsyncQdrantClient, watched: Watched | None = None) -> Follower:
    memory = await opened(qdrant)
    return await indexer(settings, Projection(watched or Watched(), memory), [memory])


@asynccontextmanager
async def written(
    settings: Settings, qdrant: AsyncQdrantClient, watched: Watched | None = None
) -> AsyncIterator[Follower]:
    """A writer that has reached the end, and follows while the block runs."""
    async with running(await writing(settings, qdrant, watched)) as follower, asyncio.timeout(SECONDS):
        await follower.ready.wait()
        yield follower


@asynccontextmanager
async def watching(
    settings: Settings, qdrant: AsyncQdrantClient, changes: MemoryChanges | None = None
) -> AsyncIterator[tuple[SharedMemory, asyncio.Task[None]]]:
    shared = SharedMemory(settings, [await opened(qdrant)], changes)
    task = asyncio.create_task(shared.run())
    try:
        async with asyncio.timeout(SECONDS):
            yield shared, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def states(qdrant: AsyncQdrantClient) -> dict[str, BuildState | None]:
    return {kind: await store.state() for kind, store in shared_stores(await opened(qdrant)).items()}


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.02)


async def ended(task: "asyncio.Task[None]") -> Exception:
    """The error that ended a worker's view."""
    with pytest.raises(ExceptionGroup) as caught:
        await task
    return caught.value.exceptions[0]
