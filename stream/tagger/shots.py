"""Exemplars for prompts: people's decisions on the most similar contents that this one may see."""

from collections.abc import Mapping, Sequence

import numpy as np

from tagbus.stream.llm import Shot
from tagbus.stream.memory.scopes import sees
from tagbus.stream.memory.store import Payload, Store
from tagbus.stream.recall.graph import GraphRecall, names_by_content
from tagbus.stream.recall.neighbours import texts
from tagbus.stream.tagger.rank import seen_by
from tagbus.stream.tagger.work import Work


class Shots:
    """Finds the nearest exemplars of contents, people's first, with the names of their tags."""

    def __init__(self, exemplars: Store, graph: GraphRecall, limit: int) -> None:
        """`limit`: exemplars per content."""
        self._exemplars = exemplars
        self._graph = graph
        self._limit = limit

    async def of(self, works: Sequence[Work]) -> list[tuple[Shot, ...]]:
        """The exemplars of each content. Raises DependencyDown if the store does not answer."""
        keys = [self._nearest(work) for work in works]
        wanted = sorted({key for own in keys for key in own})
        if not wanted:
            return [()] * len(works)
        found = await self._exemplars.fetch(wanted)
        said = {key: await self._decided(payload) for key, payload in found.items()}
        tags = {tag for decided in said.values() for some in decided for tag in some}
        names = names_by_content(await self._graph.facts(tags), len(works), [work.scopes for work in works])
        return [
            tuple(_shot(found[key], *said[key], named) for key in own if key in found and sees(work.scopes, found[key]))
            for work, own, named in zip(works, keys, names, strict=True)
        ]

    async def _decided(self, payload: Payload) -> tuple[Sequence[str], Sequence[str]]:
        """The accepted and the rejected tags of an exemplar, replaced ones as their successors."""
        before = texts(payload, "rejected")
        accepted, rejected = await self._graph.standing.decisions(texts(payload, "accepted"), before)
        # In one order: the same prompt has the same prefix.
        return accepted, [*(tag for tag in before if tag in rejected), *sorted(rejected.difference(before))]

    def _nearest(self, work: Work) -> list[str]:
        seen = seen_by(work)
        order = np.argsort(seen.machine, kind="stable")[: self._limit]
        return [str(seen.near.keys[place]) for place in order.tolist()]


def _shot(payload: Payload, accepted: Sequence[str], rejected: Sequence[str], names: Mapping[str, str]) -> Shot:
    """Leaves out retired tags, and those that the content may not see."""
    said = (tuple(names[tag] for tag in tags if tag in names) for tags in (accepted, rejected))
    return Shot(str(payload.get("title", "")), str(payload.get("text", "")), *said)
