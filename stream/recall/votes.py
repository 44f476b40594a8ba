"""The neighbours' votes for tags, summed over a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.recall.pool import Ballots, Floats, Ints, Pool

# Softmax temperatures of the votes: at 0.08 about twenty neighbours count, at 0.04 about five.
TAUS: Final = (0.08, 0.04)


@dataclass(frozen=True, slots=True)
class Votes:
    """The neighbours' votes, summed per pair of content and tag, v pairs.

    `keys` int64 [v], ascending: row * tags of the pool + tag. `shares`: for each temperature float32 [v], of all the
    content's votes. `voters` int64 [v]: the number of voters. `nearest` int64 [v]: the index of the most similar voter
    among all neighbours. `rank` int64 [v]: the rank by votes among the content's tags, from 0.
    """

    keys: Ints
    shares: Sequence[Floats]
    voters: Ints
    nearest: Ints
    rank: Ints


def count_votes(pool: Pool) -> Votes:
    """Count the votes. Machine decisions never outvote people's."""
    ballots, width = pool.ballots, pool.width
    keys = ballots.rows[ballots.voters] * width + ballots.tags
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    voters = ballots.voters[order]
    shares = [_sum(_weights(ballots, len(pool.words), tau)[voters], starts) for tau in TAUS]
    keys = keys[order][starts]
    rows = keys // width
    return Votes(keys, shares, np.diff(starts, append=len(order)), voters[starts], placed(rows, shares[0]))


def _weights(ballots: Ballots, contents: int, tau: float) -> Floats:
    """The weight of each neighbour, summing to 1 per content: a softmax at temperature tau, float32 [m]."""
    place = ranks(ballots.rows)
    nearest = ballots.similarity[np.arange(len(place)) - place]
    weights = np.exp((ballots.similarity - nearest) / np.float32(tau)).astype(np.float64)
    if ballots.machine.any():
        by_machine = np.bincount(ballots.rows, weights * ballots.machine, contents)
        by_people = np.bincount(ballots.rows, weights * ~ballots.machine, contents)
        over = (by_people > 0) & (by_machine > by_people)
        cap = np.divide(by_people, by_machine, out=np.ones(contents), where=over)
        weights = np.where(ballots.machine, weights * cap[ballots.rows], weights)
    total = np.bincount(ballots.rows, weights, contents)
    return np.asarray(weights / total[ballots.rows], np.float32)


def ranks(rows: Ints) -> Ints:
    """The position of each element within its row, from 0; `rows` is ascending."""
    return np.arange(len(rows)) - np.searchsorted(rows, rows)


def placed(rows: Ints, scores: NDArray[np.floating]) -> Ints:
    """The rank of each element by descending score within its row, from 0; ties keep their order; `rows` ascends."""
    place = np.empty(len(rows), np.int64)
    place[np.lexsort((-scores, rows))] = ranks(rows)
    return place


def _sum(values: Floats, starts: Ints) -> Floats:
    return np.add.reduceat(values, starts) if len(starts) else np.zeros(0, np.float32)
