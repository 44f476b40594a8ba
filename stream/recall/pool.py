"""The recallers' results for a batch as flat numpy arrays: the input of a ranker.

Tags are numbers here, and contents rows: 64 contents with 100 neighbours each carry 22,000 votes, and an object per
vote would cost more than the search. A number identifies a tag within one batch only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from tagbus.stream.memory.hits import Flags as Flags
from tagbus.stream.memory.hits import Floats as Floats
from tagbus.stream.memory.hits import Ints as Ints
from tagbus.stream.memory.hits import TagNumbers, joined
from tagbus.stream.recall.neighbours import Seen

# The list of tags whose text is similar to the content's (C2T).
NAMES = "names"


class Numbers:
    """A ranker's tag numbers: the tags of its training first, in order, then all others in order of arrival in memory.

    So the order of equal scores does not depend on memory. An array maps memory's numbers to these.
    """

    def __init__(self, known: Sequence[str] = (), memory: TagNumbers | None = None) -> None:
        self._memory = TagNumbers() if memory is None else memory
        self.known = len(known)
        self.ids = list(known)
        self._of = np.zeros(0, np.int64)
        first = self._memory.of(known)
        self._of = np.full(len(self._memory), -1)
        self._of[first] = np.arange(self.known)
        self._there = len(self._of)
        self._append(np.flatnonzero(self._of < 0))

    def __len__(self) -> int:
        self._grow()
        return len(self.ids)

    def of(self, tags: Sequence[str]) -> Ints:
        """The number of each tag, int64 [n]."""
        return self.of_memory(self._memory.of(tags))

    def of_memory(self, tags: Ints) -> Ints:
        """The number of each tag, from memory's numbers, int64 [n]."""
        self._grow()
        return self._of[tags]

    def _grow(self) -> None:
        there, count = self._there, len(self._memory)
        if there < count:
            if count > len(self._of):
                # Double the size: a new tag must not cost a full copy.
                self._of = np.concatenate((self._of, np.zeros(count, np.int64)))
            self._there = count
            self._append(np.arange(there, count))

    def _append(self, tags: Ints) -> None:
        self._of[tags] = len(self.ids) + np.arange(len(tags))
        self.ids += [self._memory.ids[tag] for tag in tags.tolist()]


@dataclass(frozen=True, slots=True)
class Listed:
    """One recaller's result: tag `tags[i]` for content `rows[i]` with `scores[i]`, by row, best first, unique."""

    rows: Ints
    tags: Ints
    scores: Floats


@dataclass(frozen=True, slots=True)
class Ballots:
    """The neighbours of the contents, by row, most similar first, and a vote for each tag that a neighbour accepted.

    `rows`, `similarity` and `machine` (only machine decisions) describe m neighbours; vote i is neighbour `voters[i]`
    for tag `tags[i]`, v votes, by neighbour.
    """

    rows: Ints
    similarity: Floats
    machine: Flags
    voters: Ints
    tags: Ints


@dataclass(frozen=True, slots=True)
class Pool:
    """The results of all recallers for n contents.

    Every tag number is below `width`, so row * width + tag is a key.
    """

    texts: Sequence[str]
    width: int
    lists: Mapping[str, Listed]
    ballots: Ballots

    @property
    def words(self) -> Ints:
        """The number of words of each text, int64 [n]."""
        return np.array([text.count(" ") + 1 for text in self.texts], np.int64)


def pool(
    numbers: Numbers,
    contents: Sequence[str],
    seen: Sequence[Seen],
    found: Mapping[str, Sequence[Mapping[str, float]]],
) -> Pool:
    """Build the pool from the batch's texts, memory around each content, and each other recaller's result."""
    direct = joined([one.direct for one in seen])
    names = Listed(direct.queries, numbers.of_memory(direct.tags), direct.scores)
    lists = {NAMES: names, **{name: _listed(numbers, each) for name, each in found.items()}}
    near = joined([one.near for one in seen])
    machine = np.concatenate([np.zeros(0, np.bool_), *(one.machine for one in seen)])
    ballots = Ballots(near.queries, near.scores, machine, near.carriers, numbers.of_memory(near.tags))
    return Pool(contents, len(numbers), lists, ballots)


def _listed(numbers: Numbers, found: Sequence[Mapping[str, float]]) -> Listed:
    tags = numbers.of(list(chain.from_iterable(found)))
    return Listed(
        np.repeat(np.arange(len(found)), [len(one) for one in found]),
        tags,
        np.fromiter(chain.from_iterable(one.values() for one in found), np.float32, len(tags)),
    )
