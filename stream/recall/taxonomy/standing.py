"""Tag resolution: whether a tag named by an exemplar or a model counts for a content, and as which tag.

Exemplars are never rewritten, and a model knows only the tags of its training. Their votes for a retired tag count for
its successor (successors.py). A missing tag, or one that a content may not see, is removed before anything is counted:
another tenant's tags take no ranks and leave no trace in a score.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.errors import shorten
from tagbus.stream.memory.hits import Flags, Hits, Ints, bounds
from tagbus.stream.memory.scopes import ScopeSets, audience, replaced_by, strings
from tagbus.stream.memory.store import Payload, Scopes, Store
from tagbus.stream.recall.taxonomy.hierarchy import BROADER, LEVELS, broader_of
from tagbus.stream.recall.taxonomy.successors import STEPS, Ends, ends_of, followed, only

log = logging.getLogger(__name__)

# No tag: a vote for it does not count.
NOBODY: Final = -1
# The audience of a tag that is not looked up yet.
UNKNOWN: Final = -1
# Limit of tags, by scopes, whose broader tags are remembered: following them anew took a sixth of the tagger's time on
# the example data, besides the models.
REMEMBERED: Final = 50_000


class Standing:
    """Caches the standing of a store's tags, for one event loop.

    A tag is looked up when it is first named. `change` keeps the cache current, at a cost independent of the number of
    tags.
    """

    def __init__(self, tags: Store) -> None:
        self._tags = tags
        self._numbers = tags.numbers
        # The audience of each tag, by number: no content sees a replaced or missing one.
        self._audiences: NDArray[np.int32] = np.zeros(0, np.int32)
        self._sets = ScopeSets()
        # The parents of tags that have any, and the successors of replaced tags.
        self._parents: dict[str, tuple[str, ...]] = {}
        self._replaced: dict[str, tuple[str, ...]] = {}
        self._absent: set[str] = set()
        # The broader tags of a tag by scopes, until a tag changes.
        self._broader: dict[tuple[str, frozenset[str]], list[str]] = {}
        # Retired tags whose successors form a cycle, already logged.
        self._circular: set[str] = set()

    async def change(self, tags: Mapping[str, Payload | None]) -> None:
        """Apply memory's current payloads of these tags; None: removed."""
        self._note(tags)
        self._circular.difference_update(tags)

    async def follow(self, tags: Ints) -> Ints:
        """The tag that each of these numbers counts as: itself if it is in force, its successor if it is replaced, else
        NOBODY.

        Raises DependencyDown if the store does not answer.
        """
        await self._learn(tags)
        out = np.unique(tags[~self._sets.visible(None)[self._audiences[tags]]])
        if not len(out):
            return tags
        ids = [self._numbers.ids[number] for number in out.tolist()]
        heirs = [only(await self._ends(tag_id)) for tag_id in ids]
        ends = np.array([NOBODY if heir is None else self._numbers.of([heir])[0] for heir in heirs])
        place = np.minimum(np.searchsorted(out, tags), len(out) - 1)
        return np.where(out[place] == tags, ends[place], tags)

    async def redirect(self, hits: Hits, scopes: Scopes) -> Hits:
        """The hits with their tags resolved for the queries' contents, each once per hit.

        Raises DependencyDown.
        """
        ends = await self.follow(hits.tags)
        carriers = hits.carriers
        kept = self._visible(ends, scopes, hits.queries[carriers])
        if ends is not hits.tags:
            # One key per pair of hit and tag, NOBODY included.
            keys = carriers * (len(self._numbers) + 1) + ends - NOBODY
            first = np.zeros(len(ends), np.bool_)
            first[np.unique(keys, return_index=True)[1]] = True
            kept &= first
        elif kept.all():
            return hits
        tag_starts = bounds(np.bincount(carriers[kept], minlength=len(hits.keys)))
        return Hits(hits.starts, hits.keys, hits.scores, tag_starts, ends[kept])

    async def decisions(
        self, accepted: Sequence[str], rejected: Sequence[str]
    ) -> tuple[tuple[str, ...], frozenset[str]]:
        """People's accepted and rejected tags of a content, resolved to successors. Raises DependencyDown."""
        named = [*accepted, *rejected]
        await self._learn(self._numbers.of(named))
        replaced = {tag_id: await self._ends(tag_id) for tag_id in named if tag_id in self._replaced}
        return followed(accepted, rejected, replaced)

    async def listing(self, found: Sequence[Mapping[str, float]], scopes: Scopes) -> list[Mapping[str, float]]:
        """Lists of tags with their scores, best first, resolved for each content. A tag with several scores gets the
        best. Raises DependencyDown."""
        numbers = self._numbers.of([tag_id for one in found for tag_id in one])
        rows = np.repeat(np.arange(len(found)), [len(one) for one in found])
        ends = await self.follow(numbers)
        kept = self._visible(ends, scopes, rows)
        changed = set(rows[(ends != numbers) | ~kept].tolist())
        if not changed:
            return list(found)
        ends, starts = np.where(kept, ends, NOBODY), bounds([len(one) for one in found])
        return [
            self._listed(one, ends[starts[row] : starts[row + 1]]) if row in changed else one
            for row, one in enumerate(found)
        ]

    async def learn_broader(self, tags: Iterable[str]) -> None:
        """Look up the unknown ancestors of these tags. Raises DependencyDown."""
        new = list(dict.fromkeys(tags))
        known, most = set(new), BROADER * len(new)
        for _ in range(LEVELS):
            await self._learn(self._numbers.of(new))
            above = (parent for one in new for parent in (*self._parents.get(one, ()), *self._replaced.get(one, ())))
            new = [one for one in dict.fromkeys(above) if one not in known]
            known.update(new)
            if not new or len(known) > most:
                break

    def broader(self, tag_id: str, scopes: frozenset[str]) -> Sequence[str]:
        """The known broader tags of a tag that a content of these scopes sees, nearest first.

        A replaced tag counts as its successor. Ancestors of a tag that the content does not see are left out.
        """
        if tag_id not in self._parents:
            return []
        key = tag_id, scopes
        if (found := self._broader.get(key)) is None:
            if len(self._broader) >= REMEMBERED:
                self._broader.clear()
            found = self._broader[key] = self._followed(tag_id, scopes)
        return found

    def _followed(self, tag_id: str, scopes: frozenset[str]) -> list[str]:
        seen = self._sets.visible(scopes)

        def parents(below: str) -> list[str]:
            heirs = [self._heir(parent) for parent in self._parents.get(below, ())]
            return [heir for heir in heirs if heir is not None and seen[self._audiences[self._numbers.of([heir])[0]]]]

        found, circular = broader_of(tag_id, parents)
        if circular and tag_id not in self._circular:
            self._circular.add(tag_id)
            log.warning("the tag %s is among its own broader tags, which is not followed", shorten(tag_id))
        return found

    def _heir(self, tag_id: str) -> str | None:
        """The tag that a known tag counts as, before scopes."""
        if tag_id in self._replaced:
            return only(ends_of(tag_id, self._replaced, self._there)[0])
        return tag_id if self._there(tag_id) else None

    def _there(self, tag_id: str) -> bool:
        return self._grown()[self._numbers.of([tag_id])[0]] != UNKNOWN and tag_id not in self._absent

    def _listed(self, found: Mapping[str, float], ends: Ints) -> Mapping[str, float]:
        moved: dict[str, float] = {}
        for end, score in zip(ends.tolist(), found.values(), strict=True):
            if end != NOBODY:
                heir = self._numbers.ids[end]
                moved[heir] = max(score, moved.get(heir, score))
        return dict(sorted(moved.items(), key=lambda one: -one[1]))

    def _visible(self, tags: Ints, scopes: Scopes, rows: Ints) -> Flags:
        """Which of these tags, all known, the contents of these rows see."""
        audiences = self._grown()[tags]
        if scopes is None:
            anybody: Flags = self._sets.visible(None)[audiences] & (tags != NOBODY)
            return anybody
        every = list(dict.fromkeys(scopes))
        seen = np.stack([self._sets.visible(one) for one in every]) if every else np.zeros((0, 0), np.bool_)
        places = {one: place for place, one in enumerate(every)}
        place_of = np.array([places[one] for one in scopes], np.int64)
        return np.asarray(seen[place_of[rows], audiences] & (tags != NOBODY), np.bool_)

    async def _ends(self, tag_id: str) -> Ends:
        """The successors of a tag that is not in force, by the store."""
        ways, new = {tag_id}, [tag_id]
        while new and len(ways) <= STEPS:
            await self._learn(self._numbers.of(new))
            new = [one for way in new for one in self._replaced.get(way, ()) if one not in ways]
            ways.update(new)
        ends, lost = ends_of(tag_id, self._replaced, self._there)
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

    async def _learn(self, tags: Ints) -> None:
        """Look up the unknown ones of these tags."""
        unknown = tags[self._grown()[tags] == UNKNOWN]
        if not len(unknown):
            return
        ids = [self._numbers.ids[number] for number in np.unique(unknown).tolist()]
        found = await self._tags.fetch(ids)
        audiences = self._grown()
        # Changes during the call are newer than the store's answer.
        still = zip(ids, self._numbers.of(ids).tolist(), strict=True)
        self._note({tag_id: found.get(tag_id) for tag_id, number in still if audiences[number] == UNKNOWN})

    def _note(self, tags: Mapping[str, Payload | None]) -> None:
        self._broader.clear()
        numbers = self._numbers.of(list(tags))
        audiences = self._grown()
        for number, (tag_id, payload) in zip(numbers.tolist(), tags.items(), strict=True):
            if audiences[number] != UNKNOWN:
                self._sets.leave(int(audiences[number]))
            audiences[number] = self._sets.enter(None if payload is None else audience(payload))
            (self._absent.add if payload is None else self._absent.discard)(tag_id)
            if payload is not None and (parents := strings(payload.get("parents"))):
                self._parents[tag_id] = tuple(parents)
            else:
                self._parents.pop(tag_id, None)
            if payload is not None and (successors := replaced_by(payload)):
                self._replaced[tag_id] = successors
            else:
                self._replaced.pop(tag_id, None)

    def _grown(self) -> NDArray[np.int32]:
        count = len(self._numbers)
        if count > len(self._audiences):
            more = np.full(max(count, 1_024), UNKNOWN, np.int32)
            self._audiences = np.concatenate((self._audiences, more))
        return self._audiences
