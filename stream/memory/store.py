"""The vector store interface: numpy, the embedded engine and a Qdrant server behind it."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from tagbus.stream.memory.hits import Hits, TagNumbers

Vectors = NDArray[np.float32]
Payload = Mapping[str, JsonValue]
# The scopes of each query's content, or None if every point counts.
Scopes = Sequence[frozenset[str]] | None


# The field of a payload that names the record of a point, where several processes may write.
RECORD: Final = "record"


class Source(NamedTuple):
    """The record that a point was made from. `time`: its timestamp, Unix milliseconds."""

    partition: int
    offset: int
    time: int

    @classmethod
    def of(cls, payload: Payload) -> Self | None:
        """The source named in a payload."""
        match payload.get(RECORD):
            case {"partition": int(partition), "offset": int(offset), "time": int(time)}:
                return cls(partition, offset, time)
        return None

    def as_json(self) -> dict[str, JsonValue]:
        """The form kept in a payload."""
        return {"partition": self.partition, "offset": self.offset, "time": self.time}

    def is_newer(self, other: "Source") -> bool:
        """Whether this is a later record than the other of the same key: in another partition, after partitions were
        added, the timestamps decide."""
        return self.offset > other.offset if self.partition == other.partition else self.time > other.time


@dataclass(frozen=True, slots=True)
class Point:
    """A point to store: a key (any text), a unit vector float32 [d], and JSON, whose list `scopes` says who sees it,
    and `valid_from` and `valid_until` when."""

    key: str
    vector: NDArray[np.float32]
    payload: Payload


class Store(Protocol):
    """Points of one kind of one release. `numbers` are those of the tags that they carry.

    Every method may be called while another runs; a search sees each point whole, before or after an upsert.
    Raises DependencyDown when the engine does not answer.
    """

    release: str
    dimension: int
    numbers: TagNumbers

    async def upsert(self, points: Sequence[Point]) -> None:
        """Insert or replace by key. Raises ValueError for a vector that is not finite or not of length d."""

    async def set_payloads(self, payloads: Mapping[str, Payload]) -> None:
        """Replace payloads by key; vectors stay. A missing key is no error.

        Raises ValueError for a payload that is not JSON.
        """

    async def search(self, queries: Vectors, limit: int, scopes: Scopes = None, at: datetime | None = None) -> Hits:
        """The `limit` most similar points of each query [n, d], best first; ties by key.

        With `scopes`, one set per query, only points without a scope or that share one of these. With `at`, only points
        that are valid at that time (memory/validity.py).
        """

    async def fetch(self, keys: Sequence[str]) -> dict[str, Payload]:
        """The payloads of the existing keys."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove by key; a missing key is no error."""

    async def keys(self) -> set[str]:
        """Every key, for the sweep after a rebuild."""

    async def count(self) -> int:
        """The number of points."""

    async def close(self) -> None:
        """Flush the engine to disk and close it."""


@runtime_checkable
class SelectiveStore(Store, Protocol):
    """A store that searches some of its points in less time than all."""

    async def search_among(self, queries: Vectors, limit: int, keys: Collection[str], scopes: Scopes = None) -> Hits:
        """As `search`, among the points of these keys."""


class Listed(NamedTuple):
    """A stored point: its id, and its key, or None if tagbus did not write it."""

    id: str
    key: str | None


@runtime_checkable
class ListedStore(Store, Protocol):
    """A store that outlives its process, whose points can be listed and repaired."""

    def pages(self) -> AsyncIterator[list[Listed]]:
        """Every point, page by page."""

    async def remove(self, ids: Sequence[str]) -> None:
        """Remove by id, for points without a key of ours; a missing id is no error."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The stores of one release by the names of their kinds."""

    stores: Mapping[str, Store]

    @property
    def tags(self) -> Store:
        """The store of tags."""
        return self.stores["tags"]

    @property
    def exemplars(self) -> Store:
        """The store of exemplars."""
        return self.stores["exemplars"]

    @property
    def release(self) -> str:
        """The release of all its stores."""
        return self.tags.release

    async def empty(self) -> bool:
        """Whether no store holds a point."""
        return not any([await store.count() for store in self.stores.values()])

    async def close(self) -> None:
        """Close all stores."""
        for store in self.stores.values():
            await store.close()
