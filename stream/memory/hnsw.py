"""Approximate search: an HNSW index proposes the nearest points, and the stored vectors decide.

HNSW (Malkov and Yashunin, arXiv 1603.09320) is usearch's. It holds an eight-bit copy of each vector, under its row in
the exact store. Its results are scored again from the stored vectors, so a similarity is that of the exact store. A
small store is searched exactly, and so is a query whose last rank is tied, or for which the index found too few points
of its scopes. usearch releases the GIL while it searches and builds.
"""

import errno
import hashlib
import logging
import math
import uuid
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from tagbus.stream.errors import UserError, shorten
from tagbus.stream.memory.checks import Batch
from tagbus.stream.memory.exact import ExactStore, Ranked
from tagbus.stream.memory.hits import Carried
from tagbus.stream.memory.saved import CHUNK, VECTORS
from tagbus.stream.memory.store import Vectors

if TYPE_CHECKING:
    from usearch.index import Index

log = logging.getLogger(__name__)

# Fewer points are searched exactly, which is as fast at that size: 0.8 ms of CPU a query for 102 of 40,000.
FLOOR = 50_000
# Links of a point, and points visited to add one and to search. Of the 100 nearest of 326,152 titles 98.3% are found in
# 0.57 ms of CPU. 16 links: 97.7% in 0.59 ms; 64 visited to add: 96.3% in 0.71 ms, and built in 59 s of CPU, not 159;
# 256 visited to search: 99.2% in 0.84 ms.
LINKS = 24
ADD = 128
SEEK = 160
# Rows beyond the limit that are scored again, because eight bits blur their order: without them 97.7% of the 100
# nearest of 60,000 are found, with 10 or 50 of them 98.2%. Float16 finds as many; its index takes twice the time and
# the bytes.
MARGIN = 10
# Numbers of a unit vector beyond this many times 1 / sqrt(d) are clipped; almost none of MiniLM's are.
RANGE = 6.0
# Where more than this share of the points is requested, the index would visit most of them.
PART = 20
# The index does not know scopes. The number of points requested grows with the inverse of the share that a content
# sees, plus this many standard deviations of a random choice. Queries that still get too few of their own are searched
# exactly, together: the number does not affect the results, only how many queries are searched twice.
SPARE = 3.0
# Each additional point requested takes as long as two thirds of this many rows of an exact search: 1.2 µs of CPU and 15
# µs for 1,000. Where scopes correlate with subjects, as tenants may, the index fails for half of the queries, which are
# then searched exactly: so it must save a third. Of 300,000 points, 64 queries that see a quarter took 118 ms of CPU by
# the index where it is chosen at random and 177 to 210 where it is not, exactly 140 to 155 in both.
ROWS = 150

INDEX: Final = "hnsw.usearch"
KEPT: Final = "hnsw.json"


class Kept(BaseModel):
    """`hnsw.json` beside an index: how it was built, and the SHA-256 of its vectors and of itself."""

    model_config = ConfigDict(frozen=True)

    made: str
    vectors: str
    index: str


class HnswStore(ExactStore):
    """An exact store with an index over its rows.

    Adding or changing a point takes 0.2 to 0.6 ms of CPU, and searches wait for it as for any upsert.
    """

    def __init__(self, release: str, dimension: int, carried: Carried | None = None) -> None:
        """As for an exact store. Raises UserError if usearch is missing."""
        super().__init__(release, dimension, carried)
        self._index = _empty(dimension)

    def _put(self, batch: Batch) -> None:
        first = len(self._columns)
        replaced = sorted(self._columns.row(key) for key in batch.keys if key in self._columns)
        self._store(batch)
        self._index.remove(np.array(replaced, np.uint64))
        self._add(np.array([*replaced, *range(first, len(self._columns))], np.int64))

    def _add(self, rows: NDArray[np.int64]) -> None:
        for start in range(0, len(rows), CHUNK):
            some = rows[start : start + CHUNK]
            self._index.add(some.astype(np.uint64), _bytes(self._gather(some)), threads=1)

    def _close_gap(self, row: int) -> None:
        last = len(self._columns)
        super()._close_gap(row)
        self._index.remove(row)
        if row != last:
            self._index.rename(last, row)

    def _nearest(
        self, queries: Vectors, limit: int, scopes: frozenset[str] | None, at: datetime | None
    ) -> list[Ranked]:
        count, seen = len(self._columns), self._columns.count_visible(scopes, at)
        if not len(queries) or seen < max(FLOOR, PART * limit):
            return super()._nearest(queries, limit, scopes, at)
        visible = self._columns.visible(scopes, at)
        enough = limit + MARGIN
        asked = enough if visible is None else math.ceil((enough + SPARE * math.sqrt(enough)) * count / seen)
        if visible is not None and seen < ROWS * asked:
            return super()._nearest(queries, limit, scopes, at)
        found = _found(self._index, queries, asked)
        if visible is not None:
            found = [rows[visible[rows]][:enough] for rows in found]
        ranked = [self._scored(query, rows) for query, rows in zip(queries, found, strict=True)]
        # Rows beyond these may tie with the last rank.
        open_ = [n for n, (rows, scores) in enumerate(ranked) if len(rows) <= limit or scores[-1] == scores[limit - 1]]
        exact = dict(zip(open_, super()._nearest(queries[open_], limit, scopes, at), strict=True)) if open_ else {}
        return [exact.get(n) or self._best(rows, scores, limit) for n, (rows, scores) in enumerate(ranked)]

    def _write(self, folder: Path) -> None:
        super()._write(folder)
        self._keep(folder)

    def _keep(self, folder: Path) -> None:
        """Save the index beside the points in the folder, which are these."""
        draft = folder / f".{INDEX}.{uuid.uuid4().hex}"
        try:
            _save(self._index, draft)
            kept = Kept(made=_made(), vectors=_digest(folder / VECTORS), index=_digest(draft))
            draft.replace(folder / INDEX)
            (folder / KEPT).write_text(kept.model_dump_json() + "\n", encoding="utf-8")
        finally:
            draft.unlink(missing_ok=True)

    def _clear(self) -> None:
        super()._clear()
        self._index = _empty(self.dimension)

    def _read(self, folder: Path) -> None:
        """Read the index. If the folder has none of these points, build it, and save it if the folder is writable."""
        super()._read(folder)
        if _is_kept(folder):
            self._index.load(str(folder / INDEX))
            return
        log.info("building the index of %d points of %s", len(self._columns), folder)
        self._add(np.arange(len(self._columns)))
        try:
            self._keep(folder)
        except OSError as error:
            log.warning("%s cannot keep its index: %s", folder, error.strerror)


def _empty(dimension: int) -> "Index":
    try:
        from usearch.index import Index
    except ImportError:
        raise UserError("TAGBUS_MEMORY__KIND=hnsw needs usearch: pip install 'tagbus[hnsw]'") from None
    return Index(ndim=dimension, metric="ip", dtype="i8", connectivity=LINKS, expansion_add=ADD, expansion_search=SEEK)


def _bytes(vectors: Vectors) -> NDArray[np.int8]:
    """Unit vectors float32 [n, d] in eight bits a number, in the order of dot products.

    Numbers of a unit vector are about 1 / sqrt(d) in size. usearch would leave them between -6 and 6 of 127 at 384.
    """
    scale = 127 / min(1.0, RANGE / vectors.shape[1] ** 0.5)
    return np.asarray(np.rint(vectors * np.float32(scale)).clip(-127, 127), np.int8)


def _found(index: "Index", queries: Vectors, count: int) -> list[NDArray[np.int64]]:
    """The rows of each query that the index finds, nearest first, `count` at most."""
    from usearch.index import BatchMatches

    found = index.search(_bytes(queries), count, threads=1)
    # One query is answered without its dimension.
    each = [found[n] for n in range(len(found))] if isinstance(found, BatchMatches) else [found]
    return [matches.keys.astype(np.int64) for matches in each]


def _made() -> str:
    """The build parameters that a saved index must have to be used."""
    import usearch

    return f"usearch {usearch.__version__}, i8 to {RANGE}, {LINKS} links, {ADD}"


def _save(index: "Index", path: Path) -> None:
    """Raises OSError."""
    try:
        index.save(str(path))
    except RuntimeError as error:
        raise OSError(errno.EIO, shorten(str(error), 200), str(path)) from None


def _is_kept(folder: Path) -> bool:
    """Whether the index in the folder matches the vectors beside it, is whole, and is as this process would build
    it."""
    try:
        kept = Kept.model_validate_json((folder / KEPT).read_bytes())
        return kept == Kept(made=_made(), vectors=_digest(folder / VECTORS), index=_digest(folder / INDEX))
    except (OSError, ValidationError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
