"""All stores, opened the same way."""

import tempfile
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import ArrayLike
from pydantic import JsonValue
from qdrant_client import AsyncQdrantClient

from tagbus.stream.config import MemorySettings
from tagbus.stream.memory import Carried, ExactStore, Point, Store, TagNumbers, Vectors, hnsw
from tagbus.stream.memory.hnsw import HnswStore
from tagbus.stream.memory.qdrant.client import Server, connect
from tagbus.stream.memory.qdrant.collections import CollectionSpec
from tagbus.stream.memory.qdrant.embedded import EmbeddedStore
from tagbus.stream.memory.qdrant.server import ServerStore
from tests.qdrants import SERVER

RELEASE = "test-1"


TAGS = "tags"


def carried(field: str = TAGS) -> Carried:
    """A point carries the tags that this field of its payload lists."""
    return Carried(TagNumbers(), field)


class Opener(Protocol):
    """Opens an empty store, with vectors of that many dimensions, whose points carry the tags of a field."""

    def __call__(self, dimension: int, field: str = TAGS, /) -> AbstractAsyncContextManager[Store]: ...


@asynccontextmanager
async def _exact(dimension: int, field: str = TAGS) -> AsyncIterator[Store]:
    store = ExactStore(RELEASE, dimension, carried(field))
    yield store
    await store.close()


@asynccontextmanager
async def _hnsw(dimension: int, field: str = TAGS, files: Path | None = None) -> AsyncIterator[Store]:
    """Its index is used from the second point on."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"FLOOR": 2, "MARGIN": 2, "PART": 1, "ROWS": 0}.items():
            patch.setattr(hnsw, name, value)
        store = HnswStore(RELEASE, dimension, carried(field), files)
        yield store
        await store.close()


@asynccontextmanager
async def _on_disk(dimension: int, field: str = TAGS) -> AsyncIterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        async with _hnsw(dimension, field, Path(folder) / "files") as store:
            yield store


@asynccontextmanager
async def _embedded(dimension: int, field: str = TAGS) -> AsyncIterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        store = await EmbeddedStore.open(Path(folder), RELEASE, dimension, carried(field))
        yield store
        await store.close()


@asynccontextmanager
async def _in_memory(dimension: int, field: str = TAGS) -> AsyncIterator[Store]:
    server = Server(AsyncQdrantClient(":memory:"), "memory")
    store = ServerStore(server, CollectionSpec("tagbus", RELEASE, "tags", dimension), carried(field))
    await store.begin("cluster", "tags")
    yield store
    await store.close()


@asynccontextmanager
async def _server(dimension: int, field: str = TAGS) -> AsyncIterator[Store]:
    server = connect(MemorySettings(kind="server", url=SERVER or ""))
    store = ServerStore(server, CollectionSpec("test", RELEASE, uuid.uuid4().hex, dimension), carried(field))
    await store.begin("cluster", "tags")
    yield store
    await store.drop()
    await store.close()


OPENERS: dict[str, Opener] = {
    "exact": _exact,
    "hnsw": _hnsw,
    "hnsw-on-disk": _on_disk,
    "embedded": _embedded,
    "server-in-memory": _in_memory,
}
if SERVER:
    OPENERS["server"] = _server


@pytest.fixture(scope="session", params=list(OPENERS))
def opener(request: pytest.FixtureRequest) -> Opener:
    """One of the stores, by the function that opens it empty, with vectors of that many dimensions."""
    return OPENERS[request.param]


@pytest.fixture
async def store(opener: Opener) -> AsyncIterator[Store]:
    """An empty store of 4 dimensions."""
    async with opener(4) as opened:
        yield opened


@pytest.fixture(scope="session")
def unit() -> Callable[[ArrayLike], Vectors]:
    """Rows of numbers as unit vectors."""

    def rows(numbers: ArrayLike) -> Vectors:
        array = np.asarray(numbers, np.float64)
        return np.asarray(array / np.linalg.norm(array, axis=-1, keepdims=True), np.float32)

    return rows


@pytest.fixture(scope="session")
def point(unit: Callable[[ArrayLike], Vectors]) -> Callable[..., Point]:
    """A point from a key, numbers of any length but zero, and a payload."""

    def make(key: str, numbers: ArrayLike, /, **payload: JsonValue) -> Point:
        return Point(key, unit(numbers), payload)

    return make
