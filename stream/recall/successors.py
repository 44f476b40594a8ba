"""What retired tags lead to: the tags that have replaced them.

Exemplars are never rewritten. What carries a retired tag counts for its successor, over several steps where that is
retired too (merged, or moved to a new id). Of several successors (a split) nobody has said which one is right: no
exemplar votes for any of them, and they are found by their own names and exemplars. Where all of them have become one
tag again, that tag has the votes. A cycle, a way of more than STEPS tags and a tag that is not in force lead nowhere.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.errors import shorten
from tagbus.stream.memory.hits import Hits, Ints, bounds
from tagbus.stream.memory.scopes import replaced_by
from tagbus.stream.memory.store import Payload, Store

log = logging.getLogger(__name__)

# Retired tags that are looked at on the way to the successors of one.
STEPS: Final = 100
# No tag: a vote for it counts for nobody.
NOBODY: Final = -1

# What is known of a tag by its number: nothing yet, that it is not retired for another, or that it is.
UNKNOWN, KEPT, REPLACED = range(3)


class Successors:
    """Retired tags of one store and what has replaced them, for one event loop.

    A tag is looked up when a neighbour carries it first; `change` keeps what is known right, at a cost that does not
    depend on how many tags there are.
    """

    def __init__(self, tags: Store) -> None:
        self._tags = tags
        self._numbers = tags.numbers
        self._states: NDArray[np.int8] = np.zeros(0, np.int8)
        # Of the tags that are replaced, and of those that are not there.
        self._next: dict[str, tuple[str, ...]] = {}
        self._absent: set[str] = set()
        # Retired tags that lead around in a circle, and have been told of.
        self._circular: set[str] = set()

    async def change(self, tags: Mapping[str, Payload | None]) -> None:
        """Take over what memory now holds of these tags; None: removed."""
        self._note(tags)
        self._circular.difference_update(tags)

    async def follow(self, tags: Ints) -> Ints:
        """The tag that each of these numbers leads to: itself unless it is replaced, NOBODY where that leads nowhere.

        Raises DependencyDown if the store does not answer.
        """
        states = await self._known(tags)
        replaced = np.unique(tags[states[tags] == REPLACED])
        if not len(replaced):
            return tags
        ids = [self._numbers.ids[number] for number in replaced.tolist()]
        heirs = [await self._heir(tag_id) for tag_id in ids]
        ends = np.array([NOBODY if heir is None else self._numbers.of([heir])[0] for heir in heirs])
        place = np.minimum(np.searchsorted(replaced, tags), len(replaced) - 1)
        return np.where(replaced[place] == tags, ends[place], tags)

    async def redirect(self, hits: Hits) -> Hits:
        """The hits with the tags that theirs lead to, each once a hit. Raises DependencyDown."""
        ends = await self.follow(hits.tags)
        if ends is hits.tags:
            return hits
        # One key per pair of hit and tag, NOBODY included.
        carriers, width = hits.carriers, len(self._numbers) + 1
        kept = np.zeros(len(ends), np.bool_)
        kept[np.unique(carriers * width + ends - NOBODY, return_index=True)[1]] = True
        kept &= ends != NOBODY
        tag_starts = bounds(np.bincount(carriers[kept], minlength=len(hits.keys)))
        return Hits(hits.starts, hits.keys, hits.scores, tag_starts, ends[kept])

    async def decisions(
        self, accepted: Sequence[str], rejected: Sequence[str]
    ) -> tuple[tuple[str, ...], frozenset[str]]:
        """What people accepted and rejected for a content, said of the successors.

        Who accepted a tag accepted the one that it became, and who rejected it rejected all that it was split into.
        What was said of a successor itself counts more, and an acceptance that came over more than a rejection: two
        tags that became one may have been decided differently. Raises DependencyDown.
        """
        named = [*accepted, *rejected]
        await self._known(self._numbers.of(named))
        replaced = {tag_id: await self._ends(tag_id) for tag_id in named if tag_id in self._next}
        if not replaced:
            return tuple(accepted), frozenset(rejected)
        said_yes = [tag_id for tag_id in accepted if tag_id not in replaced]
        said_no = {tag_id for tag_id in rejected if tag_id not in replaced}
        heirs = [only(replaced[tag_id]) for tag_id in accepted if tag_id in replaced]
        yes = dict.fromkeys([*said_yes, *(heir for heir in heirs if heir is not None and heir not in said_no)])
        no = {end for tag_id in rejected for end in replaced.get(tag_id, ()) if end is not None}
        return tuple(yes), frozenset(said_no | (no - yes.keys()))

    async def listing(self, found: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
        """Lists of tags with their scores, best first, said of the successors; of several scores a tag has the best.

        Raises DependencyDown.
        """
        every = list(dict.fromkeys(tag_id for one in found for tag_id in one))
        numbers = self._numbers.of(every)
        ends = await self.follow(numbers)
        if ends is numbers:
            return list(found)
        leads = {tag_id: end for tag_id, end in zip(every, ends.tolist(), strict=True) if tag_id in self._next}
        return [self._listed(one, leads) if not leads.keys().isdisjoint(one) else one for one in found]

    def _listed(self, found: Mapping[str, float], leads: Mapping[str, int]) -> Mapping[str, float]:
        moved: dict[str, float] = {}
        for tag_id, score in found.items():
            end = leads.get(tag_id)
            heir = tag_id if end is None else None if end == NOBODY else self._numbers.ids[end]
            if heir is not None:
                moved[heir] = max(score, moved.get(heir, score))
        return dict(sorted(moved.items(), key=lambda one: -one[1]))

    async def _heir(self, tag_id: str) -> str | None:
        """The only tag in force that a retired one leads to."""
        return only(await self._ends(tag_id))

    async def _ends(self, tag_id: str) -> frozenset[str | None]:
        """As `ends_of`, of what the store holds."""
        ways, new = {tag_id}, [tag_id]
        while new and len(ways) <= STEPS:
            await self._known(self._numbers.of(new))
            new = [one for way in new for one in self._next.get(way, ()) if one not in ways]
            ways.update(new)
        ends, lost = ends_of(tag_id, self._next, lambda one: one not in self._absent)
        if lost:
            self._tell(lost)
        return ends

    def _tell(self, way: Sequence[str]) -> None:
        if way[0] in self._circular:
            return
        self._circular.add(way[0])
        what = "replace each other" if len(way) != len(set(way)) else f"are more than {STEPS} steps"
        shown = " -> ".join(shorten(one) for one in (way if len(way) < 10 else (*way[:8], "...", way[-1])))
        log.warning("the tags %s %s: what carries %s counts for no tag", shown, what, shorten(way[0]))

    async def _known(self, tags: Ints) -> NDArray[np.int8]:
        """The states by number, where nothing is unknown of these."""
        unknown = tags[self._grown()[tags] == UNKNOWN]
        if len(unknown):
            ids = [self._numbers.ids[number] for number in np.unique(unknown).tolist()]
            found = await self._tags.fetch(ids)
            states = self._grown()
            # What changed while the store was asked is newer than its answer.
            late = {
                tag_id: found.get(tag_id)
                for tag_id, number in zip(ids, self._numbers.of(ids).tolist(), strict=True)
                if states[number] == UNKNOWN
            }
            self._note(late)
        return self._states

    def _note(self, tags: Mapping[str, Payload | None]) -> None:
        numbers = self._numbers.of(list(tags))
        states = self._grown()
        for number, (tag_id, payload) in zip(numbers.tolist(), tags.items(), strict=True):
            successors = () if payload is None else replaced_by(payload)
            states[number] = REPLACED if successors else KEPT
            (self._absent.add if payload is None else self._absent.discard)(tag_id)
            if successors:
                self._next[tag_id] = successors
            else:
                self._next.pop(tag_id, None)

    def _grown(self) -> NDArray[np.int8]:
        count = len(self._numbers)
        if count > len(self._states):
            self._states = np.concatenate((self._states, np.zeros(max(count, 1_024), np.int8)))
        return self._states


def ends_of(
    tag_id: str, replaced: Mapping[str, Sequence[str]], there: Callable[[str], bool]
) -> tuple[frozenset[str | None], Sequence[str]]:
    """The tags in force that a retired one leads to, None among them for a way that leads nowhere; and a way that does
    so because it goes around in a circle or is too long.

    `replaced`: the successors of each retired tag. `there`: whether a tag that has none is in force.
    """
    ends: set[str | None] = set()
    ways: list[tuple[str, ...]] = [(tag_id,)]
    looked = 0
    while ways:
        way = ways.pop()
        looked += 1
        if looked > STEPS or len(way) != len(set(way)):
            return frozenset((*ends, None)), way
        successors = replaced.get(way[-1])
        if successors is None:
            ends.add(way[-1] if there(way[-1]) else None)
        else:
            ways += [(*way, one) for one in successors]
    return frozenset(ends), ()


def only(ends: Iterable[str | None]) -> str | None:
    """The end of all ways; None where they end differently, or one leads nowhere."""
    found = set(ends)
    return found.pop() if len(found) == 1 else None
