"""The candidates of a batch, as flat numpy arrays: what a ranker scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.memory.store import Payload
from tagbus.stream.rank.cross_encoder import Wording
from tagbus.stream.recall.neighbours import Reach, texts
from tagbus.stream.recall.pool import Flags, Floats, Ints, Numbers, Pool
from tagbus.stream.recall.votes import Votes


@dataclass(frozen=True, slots=True)
class Drawn:
    """The candidates of a batch: tag `tags[i]` for content `rows[i]`, by row and tag, each pair once; and the votes."""

    rows: Ints
    tags: Ints
    votes: Votes

    def where(self, kept: Flags) -> "Drawn":
        """Those that are kept."""
        return Drawn(self.rows[kept], self.tags[kept], self.votes)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the taxonomy says of the drawn candidates' tags: `tags` int64 [u], ascending, each once.

    `letters` int64 [u] is the length of each name. `child` and `parent` int64 [p] are the pairs in which both are
    numbers of tags.
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


class Second(Protocol):
    """A closer look at the best of what a ranker rated."""

    async def rate(self, drawn: Drawn, rated: Rated, wording: Wording) -> Rated:
        """New scores for all of them, and their features with what was seen."""


class Ranker(Protocol):
    """Learnt judgement over the union of what the recallers found; `columns` are of the features that `second` gives,
    where there is one."""

    name: str
    reach: Reach
    known: Sequence[str]
    columns: Sequence[str]
    second: Second | None

    def draw(self, pool: Pool) -> Drawn:
        """The candidates that are worth a score."""

    def rate(self, pool: Pool, drawn: Drawn, facts: Facts) -> Rated:
        """A score for each of them, higher is better."""


def facts(numbers: Numbers, payloads: Mapping[str, Payload]) -> Facts:
    """What the payloads of tags in force say, as arrays."""
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
    """Which candidates are among the `count` best of their content, by content, best first. Of equal scores the smaller
    number, so a batch gives one order."""
    order = np.lexsort((tags, -scores, rows))
    rows = rows[order]
    return order[np.arange(len(rows)) - np.searchsorted(rows, rows) < count]
