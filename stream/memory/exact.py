"""Exact search in numpy: every query against every vector.

The vectors lie in slabs of 32,768 rows, so that growing copies nothing: 328,152 points of 384 dimensions are 0.5 GB and
never a moment more. A search is one matrix product per piece of a slab; a shortlist keeps what may still be among the
best, and only that is scored again, in float64, so that a similarity depends on its two vectors alone and never on the
batch or the row they stood in.
"""

import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from tagbus.stream.errors import UserError
from tagbus.stream.memory import saved
from tagbus.stream.memory.checks import DESCRIPTION, Batch, Description, check_queries, checked, encode
from tagbus.stream.memory.columns import Columns
from tagbus.stream.memory.hits import Carried, Floats, Hits, Ints, TagNumbers
from tagbus.stream.memory.scopes import groups
from tagbus.stream.memory.serial import Serial
from tagbus.stream.memory.shortlist import Shortlist
from tagbus.stream.memory.store import Payload, Point, Scopes, Vectors

# Rows and their similarities.
Ranked = tuple[Ints, Floats]

SLAB = 32_768
# Rows a matrix product and queries a block: 256 x 8,192 scores are 8 MB.
PIECE = 8_192
QUERIES = 256
# Places on the shortlists of a block: the larger the limit, the fewer queries go together.
PLACES = 65_536

_NOTHING: Final[Ranked] = (np.zeros(0, np.int64), np.zeros(0, np.float32))


class ExactStore:
    """Points in this process's memory: vectors as one float32 row each, all else as columns."""

    def __init__(self, release: str, dimension: int, carried: Carried | None = None) -> None:
        """`carried`: which tags its points carry; none if not given."""
        _one_thread()
        carried = carried or Carried(TagNumbers())
        self.release = release
        self.dimension = dimension
        self.numbers = carried.numbers
        self._slabs: list[Vectors] = []
        self._carried = carried
        self._columns = Columns(carried)
        self._serial = Serial("exact-store")

    async def upsert(self, points: Sequence[Point]) -> None:
        """Insert or replace by key. Raises ValueError as `checks.checked` says, and stores nothing then."""
        await self._serial.run(lambda: self._put(checked(points, self.dimension)))

    async def set_payloads(self, payloads: Mapping[str, Payload]) -> None:
        """Replace payloads by key, whose vectors stay. Raises ValueError for one that is no JSON."""
        bodies = {key: encode(key, payload) for key, payload in payloads.items()}
        await self._serial.run(self._set_payloads, bodies)

    async def search(self, queries: Vectors, limit: int, scopes: Scopes = None, at: datetime | None = None) -> Hits:
        """The `limit` most similar points of each query, float32 [n, d] of unit length, best first; ties by key."""
        check_queries(queries, self.dimension, limit, scopes)
        return await self._serial.search(self._search, queries, limit, scopes, at)

    async def fetch(self, keys: Sequence[str]) -> dict[str, Payload]:
        """The payloads of those keys that are there."""
        return await self._serial.run(self._fetch, keys)

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove by key; a key that is not there is no error."""
        await self._serial.run(self._delete, keys)

    async def keys(self) -> set[str]:
        """Every key."""
        return await self._serial.run(lambda: set(self._columns.keys()))

    async def count(self) -> int:
        """How many points there are."""
        return await self._serial.run(lambda: len(self._columns))

    async def close(self) -> None:
        """Let go of the thread. The points are gone with the process, unless `save` kept them."""
        self._serial.close()

    async def save(self, folder: Path) -> None:
        """Write every point into a folder, in place of the store that is there; whole or not at all.

        Raises UserError where the folder holds anything but a store.
        """
        await self._serial.run(self._save, folder)

    async def take(self, folder: Path) -> None:
        """Take over what `save` wrote, into this store, which is empty.

        Raises UserError where there is none or it is damaged, ReleaseMismatch where another release made it; the store
        is empty then. Raises ValueError for a store that is not empty.
        """
        await self._serial.run(self._take, folder)

    @classmethod
    async def load(cls, folder: Path, release: str, dimension: int, carried: Carried | None = None) -> Self:
        """The store that `save` wrote. Raises as `take` does."""
        store = cls(release, dimension, carried)
        await store.take(folder)
        return store

    def _put(self, batch: Batch) -> None:
        """What an upsert does; a store with an index keeps it in step here."""
        self._store(batch)

    def _store(self, batch: Batch) -> None:
        columns = self._columns
        fresh = [key for key in batch.keys if key not in columns]
        self._reserve(len(columns) + len(fresh))
        for key in fresh:
            columns.add(key)
        rows = np.array([columns.row(key) for key in batch.keys], np.int64)
        for slab in np.unique(rows // SLAB):
            here = rows // SLAB == slab
            self._slabs[slab][rows[here] % SLAB] = batch.vectors[here]
        for row, body in zip(rows.tolist(), batch.bodies, strict=True):
            columns.put(row, body)

    def _set_payloads(self, bodies: Mapping[str, bytes]) -> None:
        for key, body in bodies.items():
            if key in self._columns:
                self._columns.put(self._columns.row(key), body)

    def _reserve(self, rows: int) -> None:
        while len(self._slabs) * SLAB < rows:
            self._slabs.append(np.empty((SLAB, self.dimension), np.float32))

    def _fetch(self, keys: Sequence[str]) -> dict[str, Payload]:
        return {key: self._columns.payload(key) for key in keys if key in self._columns}

    def _delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            row = self._columns.remove(key)
            if row is not None:
                self._close_gap(row)
        # One empty slab stays, or a count that goes up and down across an edge would allocate each time.
        del self._slabs[len(self._columns) // SLAB + 2 :]

    def _close_gap(self, row: int) -> None:
        """The last row has moved into the gap, so that the rows stay without one; its vector follows."""
        last = len(self._columns)
        if row != last:
            self._slabs[row // SLAB][row % SLAB] = self._slabs[last // SLAB][last % SLAB]

    def _search(self, queries: Vectors, limit: int, scopes: Scopes, at: datetime | None) -> Hits:
        found = [_NOTHING] * len(queries)
        for seen, members in groups(scopes, len(queries)):
            best = self._nearest(queries[members], limit, seen, at)
            for query, one in zip(members.tolist(), best, strict=True):
                found[query] = one
        return self._columns.hits(found)

    def _nearest(
        self, queries: Vectors, limit: int, scopes: frozenset[str] | None, at: datetime | None
    ) -> list[Ranked]:
        """The best rows of each query, among those that these scopes see and that are valid then."""
        limit = min(limit, self._columns.count_visible(scopes, at))
        if limit == 0:
            return [_NOTHING] * len(queries)
        visible = self._columns.visible(scopes, at)
        block = max(1, min(QUERIES, PLACES // limit))
        found: list[Ranked] = []
        for start in range(0, len(queries), block):
            some = queries[start : start + block]
            shortlist = Shortlist(len(some), limit, self.dimension)
            for rows, vectors in self._seen(visible):
                # This way round the product takes two thirds of the time.
                shortlist.add(np.ascontiguousarray((vectors @ some.T).T), rows)
            found += [
                self._best(*self._scored(query, shortlist.rows(index)), limit) for index, query in enumerate(some)
            ]
        return found

    def _pieces(self) -> Iterator[tuple[int, Vectors]]:
        """The number of the first row, and the rows [<= 8,192, d]."""
        for first in range(0, len(self._columns), PIECE):
            start, rows = first % SLAB, min(PIECE, len(self._columns) - first)
            yield first, self._slabs[first // SLAB][start : start + rows]

    def _seen(self, visible: NDArray[np.bool_] | None) -> Iterator[tuple[Ints, Vectors]]:
        """Rows and their vectors, piece by piece, of those that are visible, bool by row; None: all. Vectors that were
        given are overwritten by the next ones."""
        # To gather into new memory takes three times as long.
        room = np.empty((0 if visible is None else PIECE, self.dimension), np.float32)
        for first, vectors in self._pieces():
            if visible is None:
                yield np.arange(first, first + len(vectors)), vectors
                continue
            seen = np.flatnonzero(visible[first : first + len(vectors)])
            if len(seen):
                yield seen + first, vectors.take(seen, axis=0, out=room[: len(seen)], mode="clip")

    def _scored(self, query: NDArray[np.float32], rows: Ints) -> Ranked:
        """The rows and their similarities, best first."""
        rows = np.sort(rows)
        scores = np.vecdot(self._gather(rows).astype(np.float64), query.astype(np.float64))
        scores = scores.astype(np.float32).clip(-1, 1)
        order = np.argsort(-scores)
        return rows[order], scores[order]

    def _best(self, rows: Ints, scores: Floats, limit: int) -> Ranked:
        """The first `limit` of rows that are in the order of their similarities; ties by key."""
        if (scores[1:] == scores[:-1]).any():
            keys = self._columns.keys_of(rows)
            falling = (-scores).tolist()
            order = sorted(range(len(rows)), key=lambda place: (falling[place], keys[place]))
            rows, scores = rows[order], scores[order]
        return rows[:limit], scores[:limit]

    def _gather(self, rows: NDArray[np.int64]) -> Vectors:
        """The vectors of rows in rising order, float32 [n, d]."""
        vectors = np.empty((len(rows), self.dimension), np.float32)
        edges = np.searchsorted(rows, SLAB * np.arange(len(self._slabs) + 1)).tolist()
        for slab, (start, end) in enumerate(pairwise(edges)):
            if start < end:
                # No row is out of bounds; without a mode take() checks first and fills a copy.
                self._slabs[slab].take(rows[start:end] - slab * SLAB, axis=0, out=vectors[start:end], mode="clip")
        return vectors

    def _save(self, folder: Path) -> None:
        if folder.exists() and any(folder.iterdir()) and not (folder / DESCRIPTION).exists():
            raise UserError(f"{folder} is not empty and holds no store of tagbus; name another folder")
        draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
        draft.mkdir(parents=True)
        try:
            self._write(draft)
            saved.swap(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _write(self, folder: Path) -> None:
        columns = self._columns
        points = ((key, columns.body(row)) for row, key in enumerate(columns.keys()))
        description = Description(release=self.release, dimension=self.dimension, count=len(columns))
        saved.write(folder, description, points, (vectors for _, vectors in self._pieces()))

    def _take(self, folder: Path) -> None:
        if len(self._columns):
            raise ValueError("this store is not empty")
        try:
            self._read(folder)
        except BaseException:
            self._clear()
            raise

    def _read(self, folder: Path) -> None:
        count = 0
        for batch in saved.read(folder, self.release, self.dimension):
            count += len(batch.keys)
            self._store(batch)
        if len(self._columns) != count:
            raise saved.damaged(folder, ValueError(f"{count} vectors and {len(self._columns)} keys"))

    def _clear(self) -> None:
        self._slabs, self._columns = [], Columns(self._carried)


@cache
def _one_thread() -> None:
    """Tell OpenBLAS to multiply in the thread that asks.

    The encoder has the cores already. Beside a load of 5 on two cores a batch of 64 at 30,000 points took 160 ms of
    time and of CPU with OpenBLAS's two threads, which spin while they wait, and 48 ms of both with one.
    """
    ThreadpoolController().select(internal_api="openblas").limit(limits=1)
