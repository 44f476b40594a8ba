"""The features that every ranker reads: one float32 table per batch, in numpy only.

Unknown values are NaN, which the trees split on: a tag that a classifier was not trained on has no score, rank or
margin from it and is ranked by the other features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.rank.candidates import Drawn, Facts
from tagbus.stream.recall.pool import Flags, Floats, Ints, Listed, Pool
from tagbus.stream.recall.votes import Votes, count_votes, placed, ranks

# The first guess, by reciprocal ranks: its best candidates are ranked, and compared with its top five. Of YSO's titles
# 64.2% of the right tags are among its first 50, 62.2% with the usual 60 and equal weights; 74% are among all 137.
FUSION: Final = 10
BY_NAME: Final = {"names": 0.5, "literal": 0.5}
TOP: Final = 5

VOTED: Final = (
    "votes",
    "votes_sharp",
    "votes_rank",
    "votes_share",
    "voters",
    "nearest_voter",
    "nearest_voter_rank",
    "votes_lift",
)
AROUND: Final = (
    "prior",
    "lift_mean",
    "lift_max",
    "given_mean",
    "given_max",
    "parents",
    "children",
    "fused",
    "fused_rank",
    "letters",
    "words",
    "nearest",
    "tenth",
    "tags_a_neighbour",
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on candidates: `listed` per recaller's list, `voted` by the neighbours' votes, `kept` per content by the
    first guess, and `sure` per list by name whatever the guess.

    A new tag is on no other list, and with more lists a name alone counts less in the guess.
    """

    listed: int
    voted: int
    kept: int
    sure: int = 0


@dataclass(frozen=True, slots=True)
class Tables:
    """Counts over the exemplars: how often each of t known tags was right, alone and with others.

    `counts` int64 [t]. `pairs` int64 [p], ascending: a * t + b for two tags that were right together `together` int64
    [p] times; both orders of a pair are included. `contents`: the number of exemplars counted.
    """

    counts: Ints
    pairs: Ints
    together: Ints
    contents: int

    def count(self, tags: Ints) -> Floats:
        """How often each tag was right; 0 for an unknown tag."""
        return _take(self.counts, tags).astype(np.float32)

    def with_(self, first: Ints, second: Ints) -> Floats:
        """How often the tags at the same position of two arrays were right together, float32."""
        known = len(self.counts)
        wanted = np.where((first >= 0) & (first < known) & (second < known), first * known + second, -1)
        place = np.minimum(np.searchsorted(self.pairs, wanted), len(self.pairs) - 1)
        if not len(self.pairs):
            return np.zeros(first.shape, np.float32)
        return np.where(self.pairs[place] == wanted, self.together[place], 0).astype(np.float32)


def columns(lists: Sequence[str]) -> tuple[str, ...]:
    """The column names, for recallers of these names in this order."""
    return (*(f"{name}_{what}" for name in lists for what in ("score", "rank", "margin")), *VOTED, *AROUND)


def draw(pool: Pool, limits: Limits) -> Drawn:
    """The best of all lists and of the votes, sorted by row and tag, unique."""
    votes = count_votes(pool)
    best = votes.rank < limits.voted
    keys, points = [votes.keys[best]], [_points("votes", votes.rank[best])]
    sure = np.zeros(0, np.int64)
    for name, one in pool.lists.items():
        rank = ranks(one.rows)
        keys.append(_key(one, pool.width)[rank < limits.listed])
        points.append(_points(name, rank[rank < limits.listed]))
        if name in BY_NAME:
            sure = np.concatenate([sure, _key(one, pool.width)[rank < min(limits.sure, limits.listed)]])
    union, place = np.unique(np.concatenate(keys), return_inverse=True)
    guess = np.bincount(place, np.concatenate(points), len(union)).astype(np.float64)
    drawn = Drawn(union // pool.width, union % pool.width, votes)
    return drawn.where((placed(drawn.rows, guess) < limits.kept) | np.isin(union, sure))


def table(pool: Pool, drawn: Drawn, facts: Facts, tables: Tables, lists: Sequence[str]) -> Floats:
    """The features of the drawn candidates: float32 [m, f], with the columns of `columns(lists)`."""
    width = pool.width
    keys = drawn.rows * width + drawn.tags
    found: list[Floats] = []
    fused = np.zeros(len(keys))
    for name in lists:
        listed = pool.lists[name]
        score, rank, margin = _of_list(listed, keys, width)
        fused += np.nan_to_num(_points(name, rank))
        found += [score, rank, margin]
    counts = tables.count(drawn.tags)
    voted = _of_votes(pool, drawn.votes, keys, counts)
    fused += np.nan_to_num(_points("votes", voted[2]))
    place = placed(drawn.rows, fused)
    around = [
        np.log1p(counts),
        *_together(drawn, place, counts, tables),
        *_family(keys, drawn, facts, width),
        fused,
        place,
        facts.letters[np.searchsorted(facts.tags, drawn.tags)],
        pool.words[drawn.rows],
        *(each[drawn.rows] for each in _neighbourhood(pool)),
    ]
    return np.stack([*found, *voted, *around], axis=1).astype(np.float32, copy=False)


def _of_list(listed: Listed, keys: Ints, width: int) -> tuple[Floats, Floats, Floats]:
    """Score, rank from 0, and distance to the best score of each candidate in one recaller's list; NaN if not in it."""
    score, rank, margin = (np.full(len(keys), np.nan, np.float32) for _ in range(3))
    if len(listed.rows):
        place, there = _place(keys, _key(listed, width))
        places = ranks(listed.rows)
        first = np.arange(len(places)) - places
        score[place] = listed.scores[there]
        rank[place] = places[there]
        margin[place] = (listed.scores - listed.scores[first])[there]
    return score, rank, margin


def _of_votes(pool: Pool, votes: Votes, keys: Ints, counts: Floats) -> list[Floats]:
    columns = np.full((len(VOTED), len(keys)), np.nan, np.float32)
    columns[:2] = columns[3:5] = columns[7] = 0
    if len(votes.keys):
        place, there = _place(keys, votes.keys)
        ballots = pool.ballots
        rows = votes.keys // pool.width
        most = np.zeros(len(pool.texts), np.float32)
        np.maximum.at(most, rows, votes.shares[0])
        columns[0][place] = votes.shares[0][there]
        columns[1][place] = votes.shares[1][there]
        columns[2][place] = votes.rank[there]
        columns[3][place] = (votes.shares[0] / most[rows])[there]
        columns[4][place] = votes.voters[there]
        columns[5][place] = ballots.similarity[votes.nearest][there]
        columns[6][place] = ranks(ballots.rows)[votes.nearest][there]
        columns[7] = 1000 * columns[1] / (1 + counts)
    return list(columns)


def _together(drawn: Drawn, place: Ints, counts: Floats, tables: Tables) -> list[Floats]:
    """Co-occurrence of candidates with the five best of the first guess: lift and share, mean and largest."""
    first = np.flatnonzero(place < TOP)
    top = np.full((int(drawn.rows[-1]) + 1 if len(drawn.rows) else 0, TOP), -1, np.int64)
    top[drawn.rows[first], place[first]] = drawn.tags[first]
    others = top[drawn.rows]
    together = tables.with_(others, np.broadcast_to(drawn.tags[:, None], others.shape))
    self_ = others == drawn.tags[:, None]
    given = together / np.maximum(tables.count(others), 1)
    lift = given * (tables.contents / np.maximum(counts, 1))[:, None]
    size = np.maximum(((others >= 0) & ~self_).sum(axis=1), 1).astype(np.float32)
    lift[self_] = given[self_] = 0
    return [
        np.log1p(lift.sum(axis=1) / size),
        np.log1p(lift.max(axis=1, initial=0)),
        given.sum(axis=1) / size,
        given.max(axis=1, initial=0),
    ]


def _family(keys: Ints, drawn: Drawn, facts: Facts, width: int) -> tuple[Floats, Floats]:
    """How many of a candidate's parents and children are candidates for the same content."""
    parents, children = (np.zeros(len(keys), np.float32) for _ in range(2))
    candidate, parent = links(drawn, facts)
    place, there = among(keys, drawn.rows[candidate], parent, width)
    np.add.at(parents, candidate[there], 1)
    np.add.at(children, place, 1)
    return parents, children


def links(drawn: Drawn, facts: Facts) -> tuple[Ints, Ints]:
    """Each pair of a candidate and a parent of its tag: the candidate's index int64 [p], and the parent int64 [p]."""
    order = np.argsort(facts.child, kind="stable")
    child = facts.child[order]
    low, high = np.searchsorted(child, drawn.tags), np.searchsorted(child, drawn.tags, side="right")
    lengths = high - low
    pair = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(low, lengths)
    return np.repeat(np.arange(len(drawn.tags)), lengths), facts.parent[order][pair]


def among(keys: Ints, rows: Ints, tags: Ints, width: int) -> tuple[Ints, Flags]:
    """Which of these pairs of content and tag are candidates, as `_place`; a tag beyond the width is not."""
    return _place(keys, np.where(tags < width, rows * width + tags, -1))


def _neighbourhood(pool: Pool) -> tuple[Floats, Floats, Floats]:
    """Per content: similarity of the nearest and of the tenth neighbour, and the mean number of tags per neighbour."""
    ballots, contents = pool.ballots, len(pool.texts)
    nearest, tenth, mean = (np.full(contents, np.nan, np.float32) for _ in range(3))
    places = ranks(ballots.rows)
    for rank, column in ((0, nearest), (9, tenth)):
        here = places == rank
        column[ballots.rows[here]] = ballots.similarity[here]
    size = np.bincount(ballots.rows, minlength=contents)
    carried = np.bincount(ballots.rows[ballots.voters], minlength=contents)
    np.divide(carried, size, out=mean, where=size > 0, casting="unsafe")
    return nearest, tenth, mean


def _key(listed: Listed, width: int) -> Ints:
    return listed.rows * width + listed.tags


def _place(keys: Ints, wanted: Ints) -> tuple[Ints, Flags]:
    """Positions of the wanted keys in `keys` (ascending), int64 [found]; and which are present, bool [wanted]."""
    if not len(keys):
        return np.zeros(0, np.int64), np.zeros(len(wanted), np.bool_)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    there = keys[place] == wanted
    return place[there], there


def _points(name: str, rank: Ints | Floats) -> NDArray[np.float64]:
    """The weight of a rank in that recaller's list in the first guess."""
    return np.asarray(BY_NAME.get(name, 1.0) / (FUSION + rank), np.float64)


def _take(values: NDArray[np.int64], numbers: Ints) -> NDArray[np.int64]:
    """The value of each number; 0 for numbers out of range."""
    if not len(values):
        return np.zeros(numbers.shape, np.int64)
    known = (numbers >= 0) & (numbers < len(values))
    return np.where(known, values[np.where(known, numbers, 0)], 0)
