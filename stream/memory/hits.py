"""Search results as numpy arrays, without a Python object for each neighbour: a content has a hundred.

Lists of different lengths are concatenated in one array, and `starts` says where each begins (the CSR form of a sparse
matrix): list i is `values[starts[i] : starts[i + 1]]`.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

N = TypeVar("N", bound=np.integer)

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
# Point keys: references to the strings that a store holds.
Keys = NDArray[np.object_]

# `Carried.tags` of points whose key is itself a tag.
KEY: Final = ""


class TagNumbers:
    """Numbers tag ids from 0, in order of arrival; a number never changes. Thread-safe.

    The stores of one memory share one, so that equal numbers are equal tags.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self._numbers = _Numbers(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, ids: Sequence[str]) -> Ints:
        """The number of each tag, int64 [n]."""
        return np.fromiter(map(self._numbers.__getitem__, ids), np.int64, len(ids))


class _Numbers(dict[str, int]):
    def __init__(self, ids: list[str]) -> None:
        super().__init__()
        self._ids = ids
        self._growing = threading.Lock()

    def __missing__(self, tag_id: str) -> int:
        with self._growing:
            number = self.get(tag_id)
            if number is None:
                # The id first: a reader that sees the number must find the id.
                self._ids.append(tag_id)
                number = self[tag_id] = len(self._ids) - 1
            return number


@dataclass(frozen=True, slots=True)
class Carried:
    """Which tags the points of a store carry, and their numbers.

    `tags` names the payload's field that lists them, KEY if the point's key is one, None if they carry none.
    """

    numbers: TagNumbers
    tags: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """The m hits of one query, best first.

    `keys` object [m]; `scores` float32 [m], cosine similarity in -1 to 1; hit i carries the tags
    `tags[tag_starts[i] : tag_starts[i + 1]]`, numbers of the memory's `TagNumbers`.
    """

    keys: Keys
    scores: Floats
    tag_starts: Ints
    tags: Ints

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def lengths(self) -> Ints:
        """How many tags each hit carries, int64 [m]."""
        # np.diff takes 8 µs, this takes 1.
        return self.tag_starts[1:] - self.tag_starts[:-1]

    def first(self, count: int) -> "Slice":
        """The best `count` hits."""
        if count >= len(self):
            return self
        end = self.tag_starts[count]
        return Slice(self.keys[:count], self.scores[:count], self.tag_starts[: count + 1], self.tags[:end])


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """The hits of n queries, m in all: `starts` int64 [n + 1] by query, the other arrays as in `Slice`."""

    starts: Ints
    keys: Keys
    scores: Floats
    tag_starts: Ints
    tags: Ints

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, query: int) -> Slice:
        start, end = self.starts[query], self.starts[query + 1]
        bounds = self.tag_starts[start : end + 1]
        return Slice(
            self.keys[start:end], self.scores[start:end], bounds - bounds[0], self.tags[bounds[0] : bounds[-1]]
        )

    def __iter__(self) -> Iterator[Slice]:
        return (self[query] for query in range(len(self)))

    @property
    def queries(self) -> Ints:
        """The query of each hit, int64 [m]."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    @property
    def ranks(self) -> Ints:
        """Each hit's rank within its query, from 0, int64 [m]."""
        return np.arange(len(self.keys)) - np.repeat(self.starts[:-1], np.diff(self.starts))

    @property
    def carriers(self) -> Ints:
        """The hit that carries each of the t tags, int64 [t]."""
        return np.repeat(np.arange(len(self.keys)), np.diff(self.tag_starts))

    def where(self, kept: Flags) -> "Hits":
        """The hits selected by `kept`, bool [m]; the queries stay."""
        if kept.all():
            return self
        tag_starts, tags = taken(self.tag_starts[:-1][kept], np.diff(self.tag_starts)[kept], self.tags)
        return Hits(bounds(kept)[self.starts], self.keys[kept], self.scores[kept], tag_starts, tags)

    def within(self, limit: int) -> "Hits":
        """The best `limit` hits of each query."""
        return self.where(self.ranks < limit)


def joined(slices: Sequence[Slice]) -> Hits:
    """Slices, one per query, as hits."""
    if not slices:
        return no_hits(0)
    lengths = np.concatenate([one.lengths for one in slices])
    return Hits(
        bounds([len(one) for one in slices]),
        np.concatenate([one.keys for one in slices]),
        np.concatenate([one.scores for one in slices]),
        bounds(lengths),
        np.concatenate([one.tags for one in slices]),
    )


def bounds(lengths: Sequence[int] | Ints | Flags) -> Ints:
    """Where concatenated lists of these lengths begin and end, int64 [n + 1]."""
    found = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=found[1:])
    return found


def taken(first: Ints, lengths: Ints, values: NDArray[N]) -> tuple[Ints, NDArray[N]]:
    """The lists that begin at `first` in `values`, concatenated: where each begins, and their values."""
    starts = bounds(lengths)
    return starts, values[np.repeat(first - starts[:-1], lengths) + np.arange(starts[-1])]


NO_HITS: Final = Slice(np.zeros(0, np.object_), np.zeros(0, np.float32), np.zeros(1, np.int64), np.zeros(0, np.int64))


def no_hits(queries: int) -> Hits:
    """Empty hits for this many queries."""
    return Hits(np.zeros(queries + 1, np.int64), NO_HITS.keys, NO_HITS.scores, NO_HITS.tag_starts, NO_HITS.tags)
