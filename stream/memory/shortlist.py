"""Shortlists: the rows that may still be among the best, while the scores of a block of queries arrive piece by
piece."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# The most rows within rounding of the last rank that are kept for each query: the first ones.
TIES = 1024
# The first rows set a bound; before it everything would pass.
SEED = 1024


class Shortlist:
    """Keeps for each of n queries at least the `limit` best rows seen, and those that rounding may have put below them.

    A float32 product of two unit vectors of length d is wrong by at most d times half of float32's epsilon (Higham,
    Accuracy and Stability of Numerical Algorithms, eq. 3.5), so two of them decide nothing within d epsilons.
    """

    def __init__(self, queries: int, limit: int, dimension: int) -> None:
        self._limit = limit
        self._fresh = True
        self._slack = dimension * float(np.finfo(np.float32).eps)
        self._rows = [np.empty(0, np.int64) for _ in range(queries)]
        self._scores = [np.empty(0, np.float32) for _ in range(queries)]
        self._bound = np.full((queries, 1), -np.inf, np.float32)

    def add(self, scores: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
        """Add the scores [n, m] of m rows, int64 [m]."""
        if self._fresh:
            self._fresh = False
            self._seed(scores[:, : max(SEED, 2 * self._limit)])
        # On the flat array: nonzero() of the matrix makes this step twice as slow (68 ms, not 37, at 328,000 rows).
        flat = np.flatnonzero(scores >= self._bound)
        passed = scores.ravel()[flat]
        queries, columns = np.divmod(flat, scores.shape[1])
        edges = np.searchsorted(queries, np.arange(len(self._rows) + 1))
        for query, (start, end) in enumerate(pairwise(edges.tolist())):
            if start < end:
                self._merge(query, rows[columns[start:end]], passed[start:end])

    def rows(self, query: int) -> NDArray[np.int64]:
        """The rows on the shortlist of a query, unordered."""
        return self._rows[query]

    def _seed(self, scores: NDArray[np.float32]) -> None:
        rank = scores.shape[1] - self._limit
        if rank >= 0:
            self._bound[:, 0] = np.partition(scores, rank, axis=1)[:, rank] - self._slack

    def _merge(self, query: int, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
        rows = np.concatenate((self._rows[query], rows))
        scores = np.concatenate((self._scores[query], scores))
        rank = len(scores) - self._limit
        if rank > 0:
            last = np.partition(scores, rank)[rank]
            above = scores > last + self._slack
            tied = np.flatnonzero(~above & (scores >= last - self._slack))
            kept = np.concatenate((np.flatnonzero(above), tied[: self._limit + TIES]))
            rows, scores = rows[kept], scores[kept]
            self._bound[query, 0] = last - self._slack
        self._rows[query], self._scores[query] = rows, scores
