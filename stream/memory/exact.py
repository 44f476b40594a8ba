"""Exact search in numpy: every query against every vector.

A search is one matrix product per piece of a slab of vectors; a shortlist keeps the rows that may still be among the
best, and only those are scored again, in float64, so that a similarity depends only on its two vectors and never on
their batch or row.
"""

import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from tagbus.stream.errors import UserError
from tagbus.stream.memory import saved
from tagbus.stream.memory.checks import DESCRIPTION, Batch, Description, check_queries, checked, encode
from tagbus.stream.memory.columns import Columns
from tagbus.stream.memory.hits import Carried, Flags, Floats, Hits, Ints, TagNumbers
from tagbus.stream.memory.rows.vectors import VectorRows
from tagbus.stream.memory.scopes import groups
from tagbus.stream.memory.serial import Serial
from tagbus.stream.memory.shortlist import Shortlist
from tagbus.stream.memory.store import Payload, Point, Scopes, Vectors

# Rows and their similarities.
Ranked = tuple[Ints, Floats]

# Rows a matrix product, of which a slab has a multiple, and queries a block: 256 x 8,192 scores are 8 MB.
PIECE = 8_192
QUERIES = 256
# Slots on the shortlists of a block: the larger the limit, the fewer queries share a block.
PLACES = 65_536
# Visible rows that are gathered at once: the processor's cache holds them until they are compared. With 8,192 half of
# the rows take as long as all of them.
GATHERED = 512

_NOTHING: Final[Ranked] = (np.zeros(0, np.int64), np.zeros(0, np.float32))


class ExactStore:
    """A store in this process's memory: vectors as one float32 row each, everything else as columns."""

    def __init__(self, release: str, dimension: int, carried: Carried | None = None, files: Path | None = None) -> None:
        """`carried`: which tags its points carry; none if not given. `files`: a folder for files that vectors and
        payloads are read from; None: they stay in memory."""
        _one_thread()
        carried = carried or Carried(TagNumbers())
        self.release = release
        self.dimension = dimension
        self.numbers = carried.numbers
        self._files = files
        self._carried = carried
        self._vectors = VectorRows(dimension, files)
        self._columns = Columns(carried, files)
        self._serial = Serial("exact-store")

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
        return await self._serial.search(self._search, queries, limit, scopes, at)

    async def search_among(self, queries: Vectors, limit: int, keys: Collection[str], scopes: Scopes = None) -> Hits:
        """As `search`, among the points of these keys."""
        check_queries(queries, self.dimension, limit, scopes)
        return await self._serial.search(self._search, queries, limit, scopes, None, keys)

    async def fetch(self, keys: Sequence[str]) -> dict[str, Payload]:
        """The payloads of the existing keys."""
        return await self._serial.run(self._fetch, keys)

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove by key; a missing key is no error."""
        await self._serial.run(self._delete, keys)

    async def keys(self) -> set[str]:
        """Every key."""
        return await self._serial.run(lambda: set(self._columns.keys()))

    async def count(self) -> int:
        """The number of points."""
        return await self._serial.run(lambda: len(self._columns))

    async def close(self) -> None:
        """Release the thread. The points are lost with the process, unless `save` kept them."""
        self._serial.close()

    async def save(self, folder: Path) -> None:
        """Write every point into a folder, atomically, replacing the store in it.

        Raises UserError if the folder has anything but a store.
        """
        await self._serial.run(self._save, folder)

    async def take(self, folder: Path) -> None:
        """Load a saved store into this store, which is empty.

        Raises UserError if there is none or it is damaged, ReleaseMismatch if it has another release; this store is
        empty then. Raises ValueError for a store that is not empty.
        """
        await self._serial.run(self._take, folder)

    def _put(self, batch: Batch) -> None:
        """Apply an upsert; a store with an index updates it here."""
        self._store(batch)

    def _store(self, batch: Batch) -> None:
        columns = self._columns
        fresh = [key for key in batch.keys if key not in columns]
        self._vectors.reserve(len(columns) + len(fresh))
        for key in fresh:
            columns.add(key)
        rows = np.array([columns.row(key) for key in batch.keys], np.int64)
        self._vectors.put(rows, batch.vectors)
        for row, body in zip(rows.tolist(), batch.bodies, strict=True):
            columns.put(row, body)

    def _set_payloads(self, bodies: Mapping[str, bytes]) -> None:
        for key, body in bodies.items():
            if key in self._columns:
                self._columns.put(self._columns.row(key), body)

    def _fetch(self, keys: Sequence[str]) -> dict[str, Payload]:
        return {key: self._columns.payload(key) for key in keys if key in self._columns}

    def _delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            row = self._columns.remove(key)
            if row is not None:
                self._close_gap(row)
        self._vectors.release(len(self._columns))

    def _close_gap(self, row: int) -> None:
        """Move the last row's vector into the gap, as its row has moved."""
        last = len(self._columns)
        if row != last:
            self._vectors.move(last, row)

    def _search(
        self,
        queries: Vectors,
        limit: int,
        scopes: Scopes,
        at: datetime | None,
        among: Collection[str] | None = None,
    ) -> Hits:
        found = [_NOTHING] * len(queries)
        chosen = None if among is None else self._columns.chosen(among)
        for seen_by, members in groups(scopes, len(queries)):
            visible = self._columns.visible(seen_by, at)
            if chosen is not None:
                visible = chosen if visible is None else chosen & visible
            seen = len(self._columns) if visible is None else int(np.count_nonzero(visible))
            best = self._nearest(queries[members], limit, visible, seen)
            for query, one in zip(members.tolist(), best, strict=True):
                found[query] = one
        return self._columns.hits(found)

    def _nearest(self, queries: Vectors, limit: int, visible: Flags | None, seen: int) -> list[Ranked]:
        """The best rows of each query, among the `seen` ones that are visible, bool by row; None: all."""
        limit = min(limit, seen)
        if limit == 0:
            return [_NOTHING] * len(queries)
        block = max(1, min(QUERIES, PLACES // limit))
        found: list[Ranked] = []
        for start in range(0, len(queries), block):
            some = queries[start : start + block]
            shortlist = Shortlist(len(some), limit, self.dimension)
            for rows, scores in self._compared(some, visible):
                shortlist.add(scores, rows)
            found += [
                self._best(*self._scored(query, shortlist.rows(index)), limit) for index, query in enumerate(some)
            ]
        return found

    def _pieces(self) -> Iterator[tuple[int, Vectors]]:
        """The number of the first row, and the rows [<= 8,192, d]."""
        return self._vectors.pieces(len(self._columns), PIECE)

    def _compared(self, queries: Vectors, visible: Flags | None) -> Iterator[tuple[Ints, Floats]]:
        """The visible rows (bool by row; None: all), piece by piece, and the similarities [n, rows] of the queries."""
        if visible is not None and np.count_nonzero(visible) <= GATHERED:
            # At once, or a few rows of each piece would be merged into each shortlist: 0.03 ms of CPU a query, not
            # 0.05, for 300 of 24,813 rows.
            rows = np.flatnonzero(visible)
            if len(rows):
                yield rows, np.ascontiguousarray((self._vectors.gather(rows) @ queries.T).T)
            return
        # To gather into new memory takes three times as long.
        room = np.empty((GATHERED, self.dimension), np.float32)
        for first, vectors in self._pieces():
            seen = np.arange(len(vectors)) if visible is None else np.flatnonzero(visible[first : first + len(vectors)])
            # This way round a product takes two thirds of the time.
            scores = np.empty((len(seen), len(queries)), np.float32)
            if len(seen) == len(vectors):
                np.matmul(vectors, queries.T, out=scores)
            else:
                for start in range(0, len(seen), GATHERED):
                    rows = seen[start : start + GATHERED]
                    some = vectors.take(rows, axis=0, out=room[: len(rows)], mode="clip")
                    np.matmul(some, queries.T, out=scores[start : start + len(rows)])
            if len(seen):
                yield seen + first, np.ascontiguousarray(scores.T)

    def _scored(self, query: NDArray[np.float32], rows: Ints) -> Ranked:
        """The rows and their similarities, best first."""
        rows = np.sort(rows)
        scores = np.vecdot(self._vectors.gather(rows).astype(np.float64), query.astype(np.float64))
        scores = scores.astype(np.float32).clip(-1, 1)
        order = np.argsort(-scores)
        return rows[order], scores[order]

    def _best(self, rows: Ints, scores: Floats, limit: int) -> Ranked:
        """The first `limit` of rows sorted by similarity; ties by key."""
        if (scores[1:] == scores[:-1]).any():
            keys = self._columns.keys_of(rows)
            falling = (-scores).tolist()
            order = sorted(range(len(rows)), key=lambda place: (falling[place], keys[place]))
            rows, scores = rows[order], scores[order]
        return rows[:limit], scores[:limit]

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
        self._vectors, self._columns = VectorRows(self.dimension, self._files), Columns(self._carried, self._files)


@cache
def _one_thread() -> None:
    """Make OpenBLAS multiply in the calling thread.

    The encoder uses the cores already. Beside a load of 5 on two cores a batch of 64 at 30,000 points took 160 ms of
    time and of CPU with OpenBLAS's two threads, which spin while they wait, and 48 ms of both with one.
    """
    ThreadpoolController().select(internal_api="openblas").limit(limits=1)
