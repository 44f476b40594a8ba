"""Qdrant's engine in this process (qdrant-edge): points on disk, searched exactly.

No index is built: `optimize()` holds the interpreter for its whole length (79 s at 200,000 points), and without it the
engine compares every vector, which is what the numpy store does. A store in a named folder outlives the process.
Payloads are kept beside the engine in a file that overwrites deleted data (memory/qdrant/payloads.py).
"""

import hashlib
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import JsonValue

from tagbus.stream.errors import DependencyDown, shorten
from tagbus.stream.memory.checks import Batch, Description, check_queries, checked, decode, encode
from tagbus.stream.memory.hits import KEY, Carried, Hits, TagNumbers
from tagbus.stream.memory.qdrant.engine import (
    SCOPES,
    Found,
    found,
    listed,
    named,
    pack,
    point_id,
    searched,
    settled,
    unpack,
    visible,
    wanted,
)
from tagbus.stream.memory.qdrant.folder import Opened, open_folder
from tagbus.stream.memory.serial import Serial
from tagbus.stream.memory.store import Listed, Payload, Point, Scopes, Vectors
from tagbus.stream.memory.validity import FROM, UNTIL, microseconds

if TYPE_CHECKING:
    import qdrant_edge
    from qdrant_edge import PointId

CHUNK = 2_000
# Until a flush the write-ahead log keeps every version of a point: 60,000 upserts of 384 dimensions took 130 MB.
FLUSH_POINTS = 20_000
SCROLL = 10_000
# The field of a stored point that links to its payload.
BODY = "body"


class EmbeddedStore:
    """A store in a folder; `open` or `temporary` create one. One process at a time has it open."""

    def __init__(self, opened: Opened, description: Description, serial: Serial, carried: Carried) -> None:
        self.release = description.release
        self.dimension = description.dimension
        self.numbers = carried.numbers
        self._carried = carried
        self._shard = opened.shard
        self._folder = opened.folder
        self._payloads = opened.payloads
        self._held = opened.held
        self._serial = serial
        self._unflushed = 0

    @classmethod
    async def open(cls, folder: Path, release: str, dimension: int, carried: Carried | None = None) -> Self:
        """Open the store in this folder, or create one. `carried`: which tags its points carry, if any.

        Raises ReleaseMismatch for a store of another release or dimension, UserError if qdrant-edge is missing, another
        process has the store open, or the folder holds something else.
        """
        return await cls._open(folder, Description(release=release, dimension=dimension), ExitStack(), carried)

    @classmethod
    async def temporary(cls, release: str, dimension: int, carried: Carried | None = None) -> Self:
        """A new store in a temporary folder, which close() deletes."""
        held = ExitStack()
        folder = Path(tempfile.mkdtemp(prefix="tagbus-"))
        held.callback(shutil.rmtree, folder, ignore_errors=True)
        description = Description(release=release, dimension=dimension)
        return await cls._open(folder / "store", description, held, carried)

    @classmethod
    async def _open(cls, folder: Path, description: Description, held: ExitStack, carried: Carried | None) -> Self:
        serial = Serial("embedded-store")
        try:
            opened = await serial.run(open_folder, folder, description, held)
            return cls(opened, description, serial, carried or Carried(TagNumbers()))
        except BaseException:
            held.close()
            serial.close()
            raise

    async def upsert(self, points: Sequence[Point]) -> None:
        """Insert or replace by key. Raises ValueError as `checks.checked` does; then nothing is stored."""
        await self._serial.run(lambda: self._put(checked(points, self.dimension)))

    async def set_payloads(self, payloads: Mapping[str, Payload]) -> None:
        """Replace payloads by key; vectors stay. Raises ValueError for one that is not JSON."""
        bodies = {key: encode(key, payload) for key, payload in payloads.items()}
        await self._serial.run(self._set_payloads, bodies)

    async def search(self, queries: Vectors, limit: int, scopes: Scopes = None, at: datetime | None = None) -> Hits:
        """The `limit` most similar points of each query, float32 [n, d] of unit length, best first; ties by key."""
        check_queries(queries, self.dimension, limit, scopes)

        async def ask(indices: Sequence[int], asked: int) -> list[list[Found]]:
            seen = None if scopes is None else [scopes[index] for index in indices]
            return await self._serial.search(self._search, queries[list(indices)], asked, seen, at)

        return await settled(ask, len(queries), limit, self._carried)

    async def fetch(self, keys: Sequence[str]) -> dict[str, Payload]:
        """The payloads of the existing keys."""
        return await self._serial.run(self._fetch, keys)

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove by key; a missing key is no error."""
        await self._serial.run(self._delete, keys)

    async def keys(self) -> set[str]:
        """Every key."""
        return {one.key async for page in self.pages() for one in page if one.key is not None}

    async def pages(self) -> AsyncIterator[list[Listed]]:
        """See ListedStore."""
        offset: PointId | None = None
        while True:
            page, offset = await self._serial.run(self._page, offset)
            yield page
            if offset is None:
                return

    async def remove(self, ids: Sequence[str]) -> None:
        """See ListedStore."""
        await self._serial.run(self._remove, ids)

    async def count(self) -> int:
        """The number of points."""
        return await self._serial.run(self._count)

    async def close(self) -> None:
        """Flush to disk and release the folder. A second call does nothing."""
        if self._serial.closed:
            return
        try:
            await self._serial.run(self._close)
        finally:
            self._held.close()
            self._serial.close()

    def _put(self, batch: Batch) -> None:
        import qdrant_edge

        for start in range(0, len(batch.keys), CHUNK):
            some = slice(start, start + CHUNK)
            points = [
                qdrant_edge.Point(point_id(key), vector, self._pack(key, body))
                for key, vector, body in zip(
                    batch.keys[some], batch.vectors[some].tolist(), batch.bodies[some], strict=True
                )
            ]
            with self._engine():
                self._shard.update(qdrant_edge.UpdateOperation.upsert_points(points))
                self._payloads.put(zip(batch.keys[some], batch.bodies[some], strict=True))
            self._written(len(points))

    def _set_payloads(self, bodies: Mapping[str, bytes]) -> None:
        import qdrant_edge

        # The engine refuses a missing point.
        there = list(self._retrieve(list(bodies)))
        with self._engine():
            for key in there:
                stored = self._pack(key, bodies[key])
                self._shard.update(qdrant_edge.UpdateOperation.overwrite_payload([point_id(key)], stored))
            self._payloads.put((key, bodies[key]) for key in there)
        self._written(len(there))

    def _pack(self, key: str, body: bytes) -> dict[str, JsonValue]:
        """The fields for the engine: those that a search reads, and the link to the payload."""
        return {**searched(pack(key, body), self._carried), BODY: _digest(body)}

    def _written(self, points: int) -> None:
        self._unflushed += points
        if self._unflushed >= FLUSH_POINTS:
            with self._engine():
                self._shard.flush()
            self._unflushed = 0

    def _search(self, queries: Vectors, limit: int, scopes: Scopes, at: datetime | None) -> list[list[Found]]:
        import qdrant_edge

        if not len(queries):
            return []
        # Search stays exact even if the folder was optimised elsewhere.
        parameters = qdrant_edge.SearchParams(exact=True)
        requests = [
            qdrant_edge.QueryRequest(
                limit=limit,
                query=qdrant_edge.Query.Nearest(query),
                with_payload=wanted(self._carried),
                filter=_filter(seen, at, self._carried),
                params=parameters,
            )
            for query, seen in zip(queries.tolist(), scopes or repeat(None, len(queries)), strict=True)
        ]
        with self._engine():
            answered = self._shard.query_batch(qdrant_edge.QueryBatchRequest(requests))
        return [[found(point.payload, point.score, self._carried) for point in points] for points in answered]

    def _fetch(self, keys: Sequence[str]) -> dict[str, Payload]:
        """A payload counts if the engine has the point that it was stored with: a crash may leave one of the two."""
        stored = self._retrieve(keys)
        with self._engine():
            bodies = self._payloads.get(list(stored))
        payloads: dict[str, Payload] = {}
        for key, point in stored.items():
            body = bodies.get(key)
            if BODY not in point:
                # From before payloads had a separate file.
                payloads[key] = unpack(point)[1]
            elif body is not None and point[BODY] == _digest(body):
                payloads[key] = decode(body)
        return payloads

    def _retrieve(self, keys: Sequence[str]) -> dict[str, dict[str, JsonValue]]:
        """The engine's points of the existing keys."""
        with self._engine():
            found = self._shard.retrieve([point_id(key) for key in keys], with_payload=True, with_vector=False)
        return {unpack(point.payload)[0]: point.payload or {} for point in found}

    def _delete(self, keys: Sequence[str]) -> None:
        import qdrant_edge

        with self._engine():
            self._payloads.drop(keys)
            self._shard.update(qdrant_edge.UpdateOperation.delete_points([point_id(key) for key in keys]))
        self._written(len(keys))

    def _page(self, offset: "PointId | None") -> tuple[list[Listed], "PointId | None"]:
        import qdrant_edge

        request = qdrant_edge.ScrollRequest(offset=offset, limit=SCROLL, with_payload=["key"])
        with self._engine():
            points, following = self._shard.scroll(request)
        return [listed(str(point.id), point.payload) for point in points], following

    def _remove(self, ids: Sequence[str]) -> None:
        import qdrant_edge

        with self._engine():
            self._shard.update(qdrant_edge.UpdateOperation.delete_points([named(id_) for id_ in ids]))
        self._written(len(ids))

    def _count(self) -> int:
        import qdrant_edge

        with self._engine():
            return self._shard.count(qdrant_edge.CountRequest(exact=True))

    def _close(self) -> None:
        with self._engine():
            self._payloads.close()
            self._shard.flush()
            self._shard.close()

    @contextmanager
    def _engine(self) -> Iterator[None]:
        """The engine raises plain Exception for all failures, a full disk for instance."""
        try:
            yield
        except Exception as error:
            if type(error) is not Exception and not isinstance(error, sqlite3.Error):
                raise
            raise DependencyDown(f"the store in {self._folder}: {shorten(str(error), 200)}") from error


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=8).hexdigest()


def _filter(scopes: frozenset[str] | None, at: datetime | None, carried: Carried) -> "qdrant_edge.Filter | None":
    import qdrant_edge

    condition, span, time = qdrant_edge.FieldCondition, qdrant_edge.RangeFloat, 0.0 if at is None else microseconds(at)
    # Not the inverse: a point without a period is valid at any time.
    invalid = [] if at is None else [condition(FROM, range=span(gt=time)), condition(UNTIL, range=span(lte=time))]
    # Only tags are ever replaced; a filter by scopes leaves those out already.
    replaced = [qdrant_edge.IsEmptyCondition(SCOPES)] if scopes is None and carried.tags == KEY else []
    if scopes is None and not invalid and not replaced:
        return None
    return qdrant_edge.Filter(
        must=None if scopes is None else [condition(SCOPES, match=qdrant_edge.MatchAny(visible(scopes)))],
        must_not=[*invalid, *replaced],
    )
