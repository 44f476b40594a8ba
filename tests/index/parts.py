"""What the tests of the index share: the real encoder, stores, and an encoder that is slow or down for a while."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import cache
from pathlib import Path

import numpy as np

from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record, encode_record
from tagbus.stream.contract.events import Exemplar, Knowledge, Tag
from tagbus.stream.encoder.base import Vectors
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.release import Release, default_folder
from tagbus.stream.errors import DependencyDown
from tagbus.stream.index.apply import MemoryRecord
from tagbus.stream.index.bootstrap import Follower
from tagbus.stream.index.snapshot import Origin
from tagbus.stream.memory import Hits, Memory, exact_memory, memory_of
from tagbus.stream.memory.exact import ExactStore
from tagbus.stream.memory.kinds import KINDS
from tagbus.stream.memory.qdrant.embedded import EmbeddedStore
from tagbus.stream.memory.store import Payload, Point, Scopes

# The topics of a snapshot where no broker is asked.
ORIGIN = Origin(cluster="c1", topics={"tags": "a1", "exemplars": "b1"})


@cache
def encoder() -> OnnxEncoder:
    """The encoder that is shipped, one for the whole run."""
    return OnnxEncoder(default_folder())


class Watched:
    """The real encoder behind a wait, or behind failures; it counts the texts that it is given."""

    def __init__(self, wait: float = 0.0, failures: int = 0) -> None:
        self.wait = wait
        self.failures = failures
        self.texts = 0

    @property
    def release(self) -> Release:
        return encoder().release

    async def encode(self, texts: Sequence[str]) -> Vectors:
        if self.failures:
            self.failures -= 1
            raise DependencyDown("the encoder is away for a moment")
        self.texts += len(texts)
        await asyncio.sleep(self.wait)
        return await encoder().encode(texts)

    async def close(self) -> None:
        """The shared encoder stays open."""


class Quick(Watched):
    """An encoder of equal vectors, for many texts."""

    async def encode(self, texts: Sequence[str]) -> Vectors:
        self.texts += len(texts)
        dimension = self.release.dimension
        return np.full((len(texts), dimension), dimension**-0.5, np.float32)


class Failing(ExactStore):
    """A store that answers `passes` more calls and refuses the `failures` after them; it counts those it refused."""

    passes = 0
    failures = 0.0
    refused = 0

    async def upsert(self, points: Sequence[Point]) -> None:
        self._answer()
        await super().upsert(points)

    async def take(self, folder: Path) -> None:
        self._answer()
        await super().take(folder)

    async def search(self, queries: Vectors, limit: int, scopes: Scopes = None, at: datetime | None = None) -> Hits:
        self._answer()
        return await super().search(queries, limit, scopes, at)

    async def fetch(self, keys: Sequence[str]) -> dict[str, Payload]:
        self._answer()
        return await super().fetch(keys)

    async def delete(self, keys: Sequence[str]) -> None:
        self._answer()
        await super().delete(keys)

    async def keys(self) -> set[str]:
        self._answer()
        return await super().keys()

    async def count(self) -> int:
        self._answer()
        return await super().count()

    def _answer(self) -> None:
        if self.passes:
            self.passes -= 1
        elif self.failures:
            self.failures -= 1
            self.refused += 1
            raise DependencyDown("the store does not answer")


def origin(_: Settings) -> Origin:
    """The broker's answer: the topics are still those."""
    return ORIGIN


def memory(release: Release | None = None) -> Memory:
    """Empty exact stores."""
    of = release or encoder().release
    return exact_memory(of.name, of.dimension)


async def embedded_memory(folder: Path) -> Memory:
    """The embedded stores of the shipped release in a folder."""
    of = encoder().release
    return await memory_of(lambda kind, carried: EmbeddedStore.open(folder / kind, of.name, of.dimension, carried))


def record(event: Tag | Exemplar | Knowledge) -> MemoryRecord:
    """The record of an event, as it stands on its topic."""
    (kind,) = (kind.name for kind in KINDS.values() if kind.model is type(event))
    return MemoryRecord(kind, encode_record(event), f"{kind}:0:0")


def tombstone(kind: str, key: str) -> MemoryRecord:
    """The null that retires a tag or withdraws an exemplar."""
    return MemoryRecord(kind, Record(key.encode(), None), f"{kind}:0:0")


def at(address: str, names: dict[str, str]) -> Settings:
    """Settings for topics of a test's own."""
    base = Settings.model_construct()
    return Settings.model_construct(
        kafka=base.kafka.model_copy(update={"brokers": address, "group": names["tags"]}),
        topics=base.topics.model_copy(update=names),
        retry=base.retry.model_copy(update={"first_seconds": 0.01, "cap_seconds": 0.05}),
    )


@asynccontextmanager
async def running(follower: Follower) -> AsyncIterator[Follower]:
    """A follower that follows while the block runs; what ends it early fails the test."""
    task = asyncio.create_task(follower.run())
    try:
        yield follower
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
