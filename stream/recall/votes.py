"""The neighbours' votes for tags, summed over a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.recall.pool import Ballots, Floats, Ints, Pool

# Softmax temperatures of the votes: at 0.08 about twenty neighbours count, at 0.04 about five.
TAUS: Final = (0.08, 0.04)
# The most that all machine decisions on a tag weigh together, in votes of a person. Less than one, or the service's
# write-backs would confirm themselves against people.
PART: Final = 0.5

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Votes:
    """The neighbours' votes, summed per pair of content and tag, v pairs.

    `keys` int64 [v], ascending: row * tags of the pool + tag. `shares`: for each temperature float32 [v], of all the
    content's votes. `voters` int64 [v]: the number of voters; where people vote for a content, machine decisions count
    as one voter together, and only for a tag that no person votes for. `nearest` int64 [v]: the index of the most
    similar voter among all neighbours. `rank` int64 [v]: the rank by votes among the content's tags, from 0.
    """

    keys: Ints
    shares: Sequence[Floats]
    voters: Ints
    nearest: Ints
    rank: Ints


def count_votes(pool: Pool) -> Votes:
    """Count the votes. All machine decisions on a tag together weigh less than one person's."""
    ballots, width = pool.ballots, pool.width
    keys = ballots.rows[ballots.voters] * width + ballots.tags
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    voters = ballots.voters[order]
    shares = [_sum(_weights(ballots, len(pool.texts), tau)[voters], starts) for tau in TAUS]
    keys = keys[order][starts]
    rows = keys // width
    counted = _voters(ballots, voters, starts, rows, len(pool.texts))
    return Votes(keys, shares, counted, voters[starts], placed(rows, shares[0]))


def capped(weights: Doubles, ballots: Ballots, contents: int) -> Doubles:
    """The weight of each neighbour, float64 [m], with machine decisions scaled down for each of n contents: together on
    one tag they weigh half as much as the least of the people's votes for the content. Without people's votes they are
    unchanged."""
    rows, voted = ballots.rows[ballots.voters], weights[ballots.voters]
    machine = ballots.machine[ballots.voters]
    if not machine.any():
        return weights
    least, most = np.full(contents, np.inf), np.zeros(contents)
    np.minimum.at(least, rows[~machine], voted[~machine])
    width = int(ballots.tags.max()) + 1
    keys, places = np.unique(rows[machine] * width + ballots.tags[machine], return_inverse=True)
    np.maximum.at(most, keys // width, np.bincount(places, voted[machine], len(keys)))
    scale = np.minimum(1.0, np.divide(PART * least, most, out=np.ones(contents), where=most > 0))
    return np.where(ballots.machine, weights * scale[ballots.rows], weights)


def _voters(ballots: Ballots, voters: Ints, starts: Ints, rows: Ints, contents: int) -> Ints:
    """The number of voters of each pair, as `Votes` counts them."""
    counted = np.diff(starts, append=len(voters))
    if not ballots.machine.any():
        return counted
    people = np.add.reduceat(~ballots.machine[voters], starts, dtype=np.int64) if len(starts) else counted
    by_people = np.bincount(rows, people, contents) > 0
    return np.where(by_people[rows], np.maximum(people, 1), counted)


def _weights(ballots: Ballots, contents: int, tau: float) -> Floats:
    """The weight of each neighbour, summing to 1 per content: a softmax at temperature tau, float32 [m]."""
    place = ranks(ballots.rows)
    nearest = ballots.similarity[np.arange(len(place)) - place]
    weights = np.exp((ballots.similarity - nearest) / np.float32(tau)).astype(np.float64)
    weights = capped(weights, ballots, contents)
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
