"""What the recallers found for a batch, as flat numpy arrays: what a ranker reads.

Tags are numbers here, and contents rows: 64 contents with 100 neighbours each carry 22,000 votes, and an object for
each would cost more than the search. A number means a tag within one batch only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.recall.graph import Seen, decided_by_machine

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

# The list of the tags whose text is like the content's (C2T).
NAMES = "names"


class Numbers(dict[str, int]):
    """Tag ids as numbers from 0: those known first, in their order, then as they come."""

    def __init__(self, known: Sequence[str] = ()) -> None:
        super().__init__(zip(known, range(len(known)), strict=True))
        self.ids = list(known)

    def __missing__(self, tag_id: str) -> int:
        number = self[tag_id] = len(self)
        self.ids.append(tag_id)
        return number

    def of(self, tags: Sequence[str]) -> Ints:
        """The number of each tag, int64 [n]."""
        return np.fromiter(map(self.__getitem__, tags), np.int64, len(tags))


@dataclass(frozen=True, slots=True)
class Listed:
    """What one recaller found: tag `tags[i]` for content `rows[i]` with `scores[i]`, by row, best first, each once."""

    rows: Ints
    tags: Ints
    scores: Floats


@dataclass(frozen=True, slots=True)
class Ballots:
    """The neighbours of the contents, by row, most similar first, and one vote for each tag that one accepted.

    `rows`, `similarity` and `machine` (nobody else decided) are of m neighbours; vote i is that of neighbour
    `voters[i]` for tag `tags[i]`, v of them, by neighbour.
    """

    rows: Ints
    similarity: Floats
    machine: Flags
    voters: Ints
    tags: Ints


@dataclass(frozen=True, slots=True)
class Pool:
    """All that the recallers found for n contents.

    `words` int64 [n] is the length of each text. Every tag's number is below `width`, so row * width + tag is a key.
    """

    words: Ints
    width: int
    lists: Mapping[str, Listed]
    ballots: Ballots


def pool(
    numbers: Numbers,
    contents: Sequence[str],
    seen: Sequence[Seen],
    found: Mapping[str, Sequence[Mapping[str, float]]],
) -> Pool:
    """The arrays of a batch: its texts, what memory holds around each, and what each other recaller found."""
    named = [{hit.key: hit.similarity for hit in one.direct} for one in seen]
    lists = {name: _listed(numbers, each) for name, each in {NAMES: named, **found}.items()}
    ballots = _ballots(numbers, seen)
    words = np.array([text.count(" ") + 1 for text in contents], np.int64)
    return Pool(words, len(numbers), lists, ballots)


def _listed(numbers: Numbers, found: Sequence[Mapping[str, float]]) -> Listed:
    tags = numbers.of(list(chain.from_iterable(found)))
    return Listed(
        np.repeat(np.arange(len(found)), [len(one) for one in found]),
        tags,
        np.fromiter(chain.from_iterable(one.values() for one in found), np.float32, len(tags)),
    )


def _ballots(numbers: Numbers, seen: Sequence[Seen]) -> Ballots:
    near = list(chain.from_iterable(one.near for one in seen))
    return Ballots(
        np.repeat(np.arange(len(seen)), [len(one.near) for one in seen]),
        np.array([hit.similarity for hit, _ in near], np.float32),
        np.array([decided_by_machine(hit) for hit, _ in near], np.bool_),
        np.repeat(np.arange(len(near)), [len(accepted) for _, accepted in near]),
        numbers.of(list(chain.from_iterable(accepted for _, accepted in near))),
    )
