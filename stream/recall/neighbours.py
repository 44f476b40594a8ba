"""Memory around a content: similar tags and exemplars, and people's decisions about the content itself."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from tagbus.stream.config import RecallSettings
from tagbus.stream.contract.events import Neighbour, exemplar_key
from tagbus.stream.contract.fields import Source
from tagbus.stream.memory.hits import Flags, Hits, Slice, no_hits
from tagbus.stream.memory.scopes import sees
from tagbus.stream.memory.store import Payload, Scopes, Store, Vectors
from tagbus.stream.recall.taxonomy.standing import Standing
from tagbus.stream.recall.taxonomy.unseen import Unseen

_MACHINE: Final = "/machine"
_PEOPLE: Final = "/people"


@dataclass(frozen=True, slots=True)
class Reach:
    """Search depth: the number of nearest tags and nearest exemplars per content."""

    tags: int
    contents: int


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Memory around one content, and people's decisions about it.

    `direct`: the nearest tags, most similar first; the key of each is its id, and its only tag is itself. `near`: the
    nearest exemplars that may vote, most similar first, with the tags that each accepted; never the content's own, and
    one per content. `machine` bool [m]: which of them have only machine decisions. `accepted` and `rejected`: the ids
    of the tags that people accepted and rejected for this content.
    """

    direct: Slice
    near: Slice
    machine: Flags
    accepted: tuple[str, ...] = ()
    rejected: frozenset[str] = frozenset()


class Neighbourhood:
    """Searches the stores of tags and of exemplars concurrently.

    `standing` resolves which tag an exemplar's tag counts as. It must be notified of every change of a tag.
    """

    def __init__(self, tags: Store, exemplars: Store, settings: RecallSettings, unseen: Unseen | None = None) -> None:
        """`unseen`: the tags that are searched; None: all.

        Raises ValueError for stores with different tag numbers: they do not belong to one memory."""
        if tags.numbers is not exemplars.numbers:
            raise ValueError("the stores of tags and exemplars do not share their numbers of tags")
        self._tags = tags
        self._exemplars = exemplars
        self._settings = settings
        self._unseen = unseen
        self.standing = Standing(tags)

    async def look(self, ids: Sequence[str], vectors: Vectors, reach: Reach, scopes: Scopes = None) -> list[Seen]:
        """Search around each content. Raises DependencyDown if a store does not answer."""
        if not ids:
            return []
        keys = [exemplar_key(content_id, "people") for content_id in ids]
        # Concurrently: on a server each is a round trip.
        direct, similar, own = await asyncio.gather(
            self._search_tags(vectors, reach.tags, scopes),
            self._search_exemplars(vectors, reach.contents, scopes),
            self._exemplars.fetch(keys),
        )
        near, machine = elected(ids, similar, reach.contents)
        decided = [own.get(key, {}) for key in keys]
        if scopes is not None:
            # Two tenants may use the same content id.
            decided = [one if sees(of, one) else {} for one, of in zip(decided, scopes, strict=True)]
        near = await self.standing.redirect(near, scopes)
        said = [await self.standing.decisions(texts(one, "accepted"), texts(one, "rejected")) for one in decided]
        return [
            Seen(direct[row], near[row], machine[near.starts[row] : near.starts[row + 1]], *decisions)
            for row, decisions in enumerate(said)
        ]

    async def _search_tags(self, vectors: Vectors, limit: int, scopes: Scopes) -> Hits:
        if not self._settings.c2t:
            return no_hits(len(vectors))
        if self._unseen is None:
            return await self._tags.search(vectors, limit, scopes)
        return await self._unseen.search(vectors, limit, scopes) or no_hits(len(vectors))

    async def _search_exemplars(self, vectors: Vectors, limit: int, scopes: Scopes) -> Hits:
        if not self._settings.c2c2t:
            return no_hits(len(vectors))
        # Two more than needed: a content's own exemplars, by people and by machine, are dropped afterwards.
        return await self._exemplars.search(vectors, limit + 2, scopes)


def elected(ids: Sequence[str], similar: Hits, limit: int) -> tuple[Hits, Flags]:
    """The `limit` nearest exemplars of each content that may vote, and which of them have only machine decisions.

    Excludes the content itself; one vote per content, people's before the machine's. All of this is read from the keys.
    """
    keys = similar.keys.tolist()
    machine = np.array([key.endswith(_MACHINE) for key in keys], np.bool_)
    kept = np.ones(len(keys), np.bool_)
    bounds = similar.starts.tolist()
    for content_id, start, end in zip(ids, bounds[:-1], bounds[1:], strict=True):
        for place in _without_vote(content_id, keys[start:end], machine[start:end]):
            kept[start + place] = False
    if kept.all():
        return similar.within(limit), machine[similar.ranks < limit]
    others = similar.where(kept)
    return others.within(limit), machine[kept][others.ranks < limit]


def _without_vote(content_id: str, keys: list[str], machine: Flags) -> Iterator[int]:
    """The positions of exemplars that may not vote for this content."""
    own = content_id + _PEOPLE, content_id + _MACHINE
    yield from (keys.index(key) for key in own if key in keys)
    if machine.any():
        there = set(keys)
        for place in np.flatnonzero(machine).tolist():
            if keys[place].removesuffix(_MACHINE) + _PEOPLE in there:
                yield place


def neighbour(key: str, similarity: float) -> Neighbour:
    """An exemplar as evidence; its key is `id/source`."""
    content_id, _, source = key.rpartition("/")
    return Neighbour(id=content_id, source=cast(Source, source), similarity=round(similarity, 4))


def texts(payload: Payload, name: str) -> Sequence[str]:
    """A list of strings in a payload that this project wrote."""
    return payload.get(name, ())  # type: ignore[return-value]
