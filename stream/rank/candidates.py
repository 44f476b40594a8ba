"""The candidates of a batch as flat numpy arrays: the input of a ranker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.memory.store import Payload
from tagbus.stream.recall.neighbours import Reach, texts
from tagbus.stream.recall.pool import Flags, Floats, Ints, Numbers, Pool
from tagbus.stream.recall.votes import Votes


@dataclass(frozen=True, slots=True)
class Drawn:
    """The candidates of a batch: tag `tags[i]` for content `rows[i]`, sorted by row and tag, unique; and the votes."""

    rows: Ints
    tags: Ints
    votes: Votes

    def where(self, kept: Flags) -> "Drawn":
        """The candidates selected by a mask."""
        return Drawn(self.rows[kept], self.tags[kept], self.votes)


@dataclass(frozen=True, slots=True)
class Facts:
    """Taxonomy facts about the drawn candidates' tags: `tags` int64 [u], ascending, unique.

    `letters` int64 [u] is the length of each name. `child` and `parent` int64 [p] are the pairs in which both are tag
    numbers.
    """

    tags: Ints
    letters: Ints
    child: Ints
    parent: Ints


@dataclass(frozen=True, slots=True)
class Rated:
    """Scores float32 [m] of m drawn candidates, and their features float32 [m, f]."""

    scores: Floats
    features: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """One content's candidates: tags int64 [m], ascending, scores float32 [m], features float32 [m, f]."""

    tags: Ints
    scores: Floats
    features: Floats


class Ranker(Protocol):
    """A learned ranking of the union of all recallers' candidates; `columns` name the features."""

    name: str
    reach: Reach
    known: Sequence[str]
    columns: Sequence[str]

    def draw(self, pool: Pool) -> Drawn:
        """Select the candidates worth scoring."""

    def rate(self, pool: Pool, drawn: Drawn, facts: Facts) -> Rated:
        """Score them; higher is better."""


class SecondRanker(Protocol):
    """A learned ranking that also sees the cross-encoder's scores of the best candidates; `columns` name the
    features."""

    columns: Sequence[str]

    def asked(self, rows: Ints, tags: Ints, rated: Rated) -> Ints:
        """Indices of the candidates to pass to the cross-encoder, int64 [a]."""

    def rate(self, tags: Ints, rated: Rated, asked: Ints, found: Floats) -> Rated:
        """Score every candidate; `found` float32 [a] are the cross-encoder's scores of the `asked` ones."""


def split(rows: Ints, tags: Ints, rated: Rated, contents: int) -> list[Scored]:
    """The candidates per content; `rows` is ascending."""
    edges = np.searchsorted(rows, np.arange(contents + 1)).tolist()
    return [
        Scored(tags[start:end], rated.scores[start:end], rated.features[start:end]) for start, end in pairwise(edges)
    ]


def gather(scored: Sequence[Scored]) -> tuple[Ints, Ints, Rated]:
    """The candidates of a batch: content row, tag and rating of each; the inverse of `split`."""
    rows = np.repeat(np.arange(len(scored)), [len(one.tags) for one in scored])
    tags = np.concatenate([one.tags for one in scored])
    rated = Rated(np.concatenate([one.scores for one in scored]), np.concatenate([one.features for one in scored]))
    return rows, tags, rated


def facts(numbers: Numbers, payloads: Mapping[str, Payload]) -> Facts:
    """The payloads of tags in force, as arrays."""
    tags = numbers.of(list(payloads))
    order = np.argsort(tags)
    letters = np.array([len(str(payload["name"])) for payload in payloads.values()], np.int64)
    pairs = [(child, parent) for child, payload in payloads.items() for parent in texts(payload, "parents")]
    return Facts(
        tags[order],
        letters[order],
        numbers.of([child for child, _ in pairs]),
        numbers.of([parent for _, parent in pairs]),
    )


def best(rows: Ints, tags: Ints, scores: NDArray[np.floating], count: int) -> Ints:
    """Indices of the `count` best candidates per content, best first. Ties go to the smaller tag number, so the order
    is deterministic."""
    order = np.lexsort((tags, -scores, rows))
    rows = rows[order]
    return order[np.arange(len(rows)) - np.searchsorted(rows, rows) < count]
