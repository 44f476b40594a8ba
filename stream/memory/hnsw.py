"""Approximate search: an HNSW index proposes the nearest points, and the stored vectors decide.

HNSW (Malkov and Yashunin, arXiv 1603.09320) is usearch's. It holds an eight-bit copy of each vector, under its row in
the exact store. Its results are scored again from the stored vectors, so a similarity is that of the exact store. A
small store is searched exactly, and so is a query whose last rank is tied, or for which the index found too few points
of its scopes. usearch releases the GIL while it searches and builds.

A graph does not lead to every point. The neighbours of an outlier link to points nearer to them, and a query near the
outlier ends elsewhere: of 200 outliers among a million points in dense clusters, the graph finds 8% from a query at a
similarity of 0.7. So each added point is looked for by probes, which are queries near it. A point that a probe misses
is set apart, and every search compares it. Earlier points are probed again as others are added, which may take their
links.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.dots import EightBitRows
from tagbus.stream.errors import UserError
from tagbus.stream.memory.checks import Batch
from tagbus.stream.memory.exact import ExactStore, Ranked
from tagbus.stream.memory.hits import Carried, Flags, Floats, Ints
from tagbus.stream.memory.rows import index as index_files
from tagbus.stream.memory.saved import CHUNK
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
# nearest of 60,000 are found, with 10 or 50 98.2%, as in float16, which takes twice the time and bytes. An index of cut
# vectors needs more.
MARGIN, CUT_MARGIN = 10, 30
# Numbers of a unit vector beyond this many times 1 / sqrt(d) are clipped; almost none of MiniLM's are.
RANGE = 6.0
# Where more than this share of the points is requested, the index would visit most of them.
PART = 20
# The index does not know scopes. The number of points requested grows with the inverse of the share that a content
# sees, plus this many standard deviations of a random choice. Queries that still get too few of their own are searched
# exactly, together: the number does not affect the results, only how many queries are searched twice.
SPARE = 3.2
# Scopes may correlate with subjects, as tenants do: then a query is amid points that it sees, or amid others, where the
# index is searched in vain. A probe of LOOK points tells; it takes 0.1 ms of CPU. The share among them counts if it
# differs from that of all points by more than SPARE standard deviations.
# Each point requested takes as long as comparing a query with this many rows: 2.4 µs of CPU, and 12 ns. A query whose
# requests take longer is searched exactly.
ROWS = 200

# Probes of an added point, their similarity to it, and how many points of the graph they visit: fewer than a search
# does. They miss none of 24,813 names; of 300 random vectors among these 69%, a search 29%. A probe takes 0.07 ms.
PROBES = 3
NEAR = 0.6
LOOK = 32
# A probe misses the point if its best result is less similar by this; eight bits blur similarities by some 0.001.
SLACK = 0.01
# The most points that are set apart, the last ones added. Comparing a query with them takes 0.015 ms of CPU in eight
# bits, 0.06 in float32.
APART = 8_192


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How many numbers of a vector the index holds, the first ones (None: all), and how many points a search visits."""

    numbers: int | None = None
    visited: int = SEEK


class HnswStore(ExactStore):
    """An exact store with an index over its rows.

    Adding or changing a point takes 0.5 to 1 ms of CPU, and searches wait for it as for any upsert.
    """

    def __init__(
        self,
        release: str,
        dimension: int,
        carried: Carried | None = None,
        files: Path | None = None,
        options: IndexOptions | None = None,
    ) -> None:
        """As an exact store's. Raises UserError if usearch is missing."""
        super().__init__(release, dimension, carried, files)
        options = options or IndexOptions()
        self._index = _empty(min(options.numbers or dimension, dimension))
        self._visited = options.visited
        self._margin = MARGIN if self._index.ndim == dimension else CUT_MARGIN
        # Rows; the first ones are dropped first.
        self._apart = np.zeros(0, np.int64)
        # Their vectors; None: to be read at the next search.
        self._rounded: EightBitRows | None = None
        # All rows before this one have been probed again.
        self._probed = 0
        self._random = np.random.default_rng(0)
        self._told = False

    def _put(self, batch: Batch) -> None:
        first = len(self._columns)
        replaced = sorted(self._columns.row(key) for key in batch.keys if key in self._columns)
        self._store(batch)
        self._index.remove(np.array(replaced, np.uint64))
        self._add(np.array([*replaced, *range(first, len(self._columns))], np.int64))

    def _add(self, rows: Ints) -> None:
        for some in _chunks(rows):
            self._index.add(some.astype(np.uint64), _bytes(self._vectors.gather(some), self._index.ndim), threads=1)
        self._probe(np.sort(rows), np.setdiff1d(self._earlier(len(rows)), rows))

    def _probe(self, added: Ints, earlier: Ints) -> None:
        """Set apart those of the rows, in ascending order, that the index does not lead to. Earlier rows displace no
        row that is already apart."""
        apart = np.isin(earlier, self._apart)
        still = self._missed(earlier[apart], PROBES)
        gone = np.concatenate((added, np.setdiff1d(earlier[apart], still)))
        kept = self._apart[~np.isin(self._apart, gone)]
        more = self._missed(earlier[~apart], 1)
        rows = np.concatenate((more, kept, self._missed(added, PROBES)))
        if len(rows) > APART and not self._told:
            self._told = True
            log.warning("the index of %d points misses more than %d of them", len(self._columns), APART)
        rows = rows[-APART:]
        # Rounding 8,192 vectors takes 11 ms; most points that are added are not apart.
        if not np.array_equal(rows, self._apart) or np.isin(added, rows).any():
            self._apart, self._rounded = rows, None

    def _earlier(self, count: int) -> Ints:
        """The next rows to be probed again."""
        rows = (self._probed + np.arange(count)) % max(1, len(self._columns))
        self._probed = int(rows[-1]) + 1 if count else self._probed
        return rows

    def _missed(self, rows: Ints, probes: int) -> Ints:
        """The ones of these ascending rows that the index misses from one of this many nearby queries."""
        return np.concatenate((rows[:0], *(some[self._far(some, probes)] for some in _chunks(rows))))

    def _far(self, rows: Ints, probes: int) -> Flags:
        """Which of the rows a query near them misses: what it finds is less similar to it."""
        length = self._index.ndim
        vectors, far = _cut(self._vectors.gather(rows), length), np.zeros(len(rows), np.bool_)
        for _ in range(probes):
            queries = _near(vectors, self._random)
            found = [next(iter(one), rows[0]) for one in _found(self._index, queries, 1, LOOK)]
            nearest, places = np.unique(np.array(found), return_inverse=True)
            others = _cut(self._vectors.gather(nearest), length)[places]
            far |= _dots(others, queries) < _dots(vectors, queries) - SLACK
        return far

    def _close_gap(self, row: int) -> None:
        last = len(self._columns)
        super()._close_gap(row)
        self._index.remove(row)
        if row in self._apart:
            self._apart, self._rounded = self._apart[self._apart != row], None
        if row != last:
            self._index.rename(last, row)
            # Its vector stays as it is.
            self._apart[self._apart == last] = row

    def _nearest(self, queries: Vectors, limit: int, visible: Flags | None, seen: int) -> list[Ranked]:
        if not len(queries) or seen < max(FLOOR, PART * limit):
            return super()._nearest(queries, limit, visible, seen)
        enough = limit + self._margin
        if visible is None:
            found = _found(self._index, queries, enough, self._visited)
        else:
            found = self._found_visible(queries, enough, visible, seen)
        ranked = [self._scored(query, rows) for query, rows in zip(queries, found, strict=True)]
        ranked = self._with_apart(queries, ranked, limit, visible)
        # Rows beyond these may tie with the last rank.
        open_ = [n for n, (rows, scores) in enumerate(ranked) if len(rows) <= limit or scores[-1] == scores[limit - 1]]
        exact = dict(zip(open_, super()._nearest(queries[open_], limit, visible, seen), strict=True)) if open_ else {}
        return [exact.get(n) or self._best(rows, scores, limit) for n, (rows, scores) in enumerate(ranked)]

    def _found_visible(self, queries: Vectors, enough: int, visible: Flags, seen: int) -> list[Ints]:
        """Up to `enough` visible rows for each query; none for a query that an exact search answers sooner."""
        found = [np.zeros(0, np.int64)] * len(queries)
        shares, wanted = self._shares(queries, visible, seen), enough + SPARE * math.sqrt(enough)
        for share in np.unique(shares[shares * seen > ROWS * wanted]):
            members = np.flatnonzero(shares == share)
            each = _found(self._index, queries[members], math.ceil(wanted / share), self._visited)
            for query, rows in zip(members, each, strict=True):
                found[query] = rows[visible[rows]][:enough]
        return found

    def _shares(self, queries: Vectors, visible: Flags, seen: int) -> Floats:
        """The share of visible points around each query, float32 [n]."""
        share = seen / len(visible)
        near = np.array([np.count_nonzero(visible[rows]) for rows in _found(self._index, queries, LOOK, LOOK)]) / LOOK
        chance = SPARE * math.sqrt(share * (1 - share) / LOOK)
        return np.where(abs(near - share) > chance, near, share).astype(np.float32)

    def _with_apart(self, queries: Vectors, ranked: list[Ranked], limit: int, visible: Flags | None) -> list[Ranked]:
        """The results of each query, with the rows set apart that are as similar as the last rank. A query with too few
        results stays as it is: it is searched exactly."""
        products, slack = self._apart_rounded().dots(queries)
        last = np.array([scores[limit - 1] if len(scores) > limit else 2 for _, scores in ranked], np.float32)
        near = products >= last[:, None] - slack
        if visible is not None:
            near &= visible[self._apart]
        ranked = list(ranked)
        for query in np.flatnonzero(near.any(axis=1)).tolist():
            ranked[query] = self._scored(queries[query], np.union1d(ranked[query][0], self._apart[near[query]]))
        return ranked

    def _apart_rounded(self) -> EightBitRows:
        """The vectors of the rows set apart, in their order."""
        if self._rounded is None:
            # Vectors are gathered by ascending rows.
            order = np.argsort(self._apart)
            vectors = np.empty((len(order), self.dimension), np.float32)
            vectors[order] = self._vectors.gather(self._apart[order])
            self._rounded = EightBitRows(vectors)
        return self._rounded

    def _write(self, folder: Path) -> None:
        super()._write(folder)
        self._keep(folder)

    def _keep(self, folder: Path) -> None:
        """Save the index beside the points in the folder, which are these."""
        index_files.keep(folder, self._index, _made(self._index.ndim), tuple(self._apart.tolist()))

    def _clear(self) -> None:
        super()._clear()
        self._index = _empty(self._index.ndim)
        self._apart, self._rounded, self._probed = np.zeros(0, np.int64), None, 0

    def _read(self, folder: Path) -> None:
        """Read the index. If the folder has none of these points, build it, and save it if the folder is writable."""
        super()._read(folder)
        if (kept := index_files.kept(folder, _made(self._index.ndim))) is not None:
            self._index.load(str(folder / index_files.INDEX))
            self._apart, self._rounded = np.array(kept.apart, np.int64), None
            return
        log.info("building the index of %d points of %s", len(self._columns), folder)
        self._add(np.arange(len(self._columns)))
        try:
            self._keep(folder)
        except OSError as error:
            log.warning("%s cannot keep its index: %s", folder, error.strerror)


def _empty(dimension: int) -> "Index":
    # ONNX Runtime 1.32 crashes the process when it is imported after usearch 2.26.
    import tagbus.stream.onnx_runtime  # noqa: F401

    try:
        from usearch.index import Index
    except ImportError:
        raise UserError("TAGBUS_MEMORY__KIND=hnsw needs usearch: pip install 'tagbus[hnsw]'") from None
    return Index(ndim=dimension, metric="ip", dtype="i8", connectivity=LINKS, expansion_add=ADD, expansion_search=SEEK)


def _bytes(vectors: Vectors, length: int) -> NDArray[np.int8]:
    """Unit vectors float32 [n, d], cut, in eight bits a number, in the order of dot products.

    Numbers of a unit vector are about 1 / sqrt(d) in size. usearch would leave them between -6 and 6 of 127 at 384.
    """
    scale = 127 / min(1.0, RANGE / length**0.5)
    return np.asarray(np.rint(_cut(vectors, length) * np.float32(scale)).clip(-127, 127), np.int8)


def _cut(vectors: Vectors, length: int) -> Vectors:
    """The first numbers of unit vectors float32 [n, d], of unit length again."""
    if length == vectors.shape[1]:
        return vectors
    some = vectors[:, :length]
    return np.asarray(some / np.sqrt(_dots(some, some)).clip(1e-9)[:, None], np.float32)


def _chunks(rows: Ints) -> Iterator[Ints]:
    """The rows, a few thousand at a time."""
    return (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))


def _near(vectors: Vectors, random: np.random.Generator) -> Vectors:
    """For each unit vector, float32 [n, d], a probe: a unit vector at the similarity NEAR, in a random direction."""
    away = random.standard_normal(vectors.shape, np.float32)
    away -= _dots(away, vectors)[:, None] * vectors
    away *= np.float32((1 - NEAR**2) ** 0.5) / np.sqrt(_dots(away, away))[:, None]
    return np.float32(NEAR) * vectors + away


def _dots(some: Vectors, others: Vectors) -> Floats:
    """The similarity of each row to the same row of the others, float32 [n]."""
    return np.asarray(np.vecdot(some, others), np.float32)


def _found(index: "Index", queries: Vectors, count: int, points: int) -> list[Ints]:
    """The rows of each query that the index finds, nearest first, `count` at most, by visiting this many points."""
    from usearch.index import BatchMatches

    index.expansion_search = points  # type: ignore[misc]
    found = index.search(_bytes(queries, index.ndim), count, threads=1)
    # One query is answered without its dimension.
    each = [found[n] for n in range(len(found))] if isinstance(found, BatchMatches) else [found]
    return [matches.keys.astype(np.int64) for matches in each]


def _made(length: int) -> str:
    """The build parameters that a saved index must have to be used."""
    import usearch

    built = f"{length} numbers in i8 to {RANGE}, {LINKS} links, {ADD}, {PROBES} probes at {NEAR}, {LOOK}"
    return f"usearch {usearch.__version__}, {built}"
