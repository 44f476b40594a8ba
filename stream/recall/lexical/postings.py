"""Postings: the rows that contain a term, with counts, as lists that grow and shrink inside two arrays.

A list that outgrows its capacity moves to the end with twice the capacity; the space it leaves is reclaimed when the
arrays are full. An entry takes 6 bytes, with spare capacity 6 to 12.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.memory.hits import Ints, bounds

FIRST: Final = 1024
# The cap of a term's count in a text.
MOST: Final = 65_535

Rows = NDArray[np.int32]
Counts = NDArray[np.uint16]


class Postings:
    """The posting lists of terms numbered from 0."""

    def __init__(self) -> None:
        self._first = np.zeros(FIRST, np.int64)
        self._lengths = np.zeros(FIRST, np.int64)
        self._room = np.zeros(FIRST, np.int64)
        self._rows: Rows = np.zeros(FIRST, np.int32)
        self._counts: Counts = np.zeros(FIRST, np.uint16)
        self._end = 0

    def of(self, term: int) -> tuple[Rows, Counts]:
        """The rows of a term, unordered, and its count in each; views that the next change may modify."""
        here = slice(self._first[term], self._first[term] + self._lengths[term])
        return self._rows[here], self._counts[here]

    def frequencies(self, terms: Sequence[int]) -> Ints:
        """The number of rows with each term, int64 [n]."""
        return self._lengths[list(terms)]

    def add(self, terms: Ints, rows: Ints, counts: Ints) -> None:
        """Add entries of rows that do not have these terms yet."""
        if not len(terms):
            return
        order = np.argsort(terms, kind="stable")
        terms, rows, counts = terms[order], rows[order], counts[order].clip(max=MOST)
        different, more = np.unique(terms, return_counts=True)
        self._reserve(different, more)
        within = np.arange(len(terms)) - np.repeat(bounds(more)[:-1], more)
        places = np.repeat(self._first[different] + self._lengths[different], more) + within
        self._rows[places], self._counts[places] = rows, counts
        self._lengths[different] += more

    def remove(self, terms: Ints, row: int) -> list[int]:
        """Remove a row from the lists of its terms. Returns the terms whose lists are empty now."""
        for term in terms.tolist():
            rows, counts = self.of(term)
            place = np.flatnonzero(rows == row)[0]
            rows[place], counts[place] = rows[-1], counts[-1]
            self._lengths[term] -= 1
        empty: list[int] = terms[self._lengths[terms] == 0].tolist()
        return empty

    def _reserve(self, terms: Ints, more: Ints) -> None:
        """Reserve capacity for this many more entries in the lists of these terms."""
        if terms[-1] >= len(self._first):
            missing = np.zeros(max(len(self._first), int(terms[-1])), np.int64)
            self._first = np.concatenate((self._first, missing))
            self._lengths = np.concatenate((self._lengths, missing))
            self._room = np.concatenate((self._room, missing))
        needed = self._lengths[terms] + more
        full = needed > self._room[terms]
        terms, room = terms[full], 2 * needed[full]
        if self._end + room.sum() > len(self._rows):
            self._compact(int(room.sum()))
        starts = self._end + bounds(room)
        for term, start in zip(terms.tolist(), starts[:-1].tolist(), strict=True):
            rows, counts = self.of(term)
            self._rows[start : start + len(rows)], self._counts[start : start + len(rows)] = rows, counts
        self._first[terms], self._room[terms], self._end = starts[:-1], room, int(starts[-1])

    def _compact(self, more: int) -> None:
        """Close the gaps that moved lists left, and make room for `more` entries at the end."""
        starts = bounds(self._room)
        places = np.repeat(self._first - starts[:-1], self._room) + np.arange(starts[-1])
        size = int(starts[-1] + more) * 5 // 4 + FIRST
        rows, counts = np.zeros(size, np.int32), np.zeros(size, np.uint16)
        rows[: starts[-1]], counts[: starts[-1]] = self._rows[places], self._counts[places]
        self._rows, self._counts = rows, counts
        self._first, self._end = starts[:-1].copy(), int(starts[-1])
