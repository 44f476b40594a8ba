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
        tags = {tag for one in found.values() for field in ("accepted", "rejected") for tag in texts(one, field)}
        names = names_by_content(await self._graph.facts(tags), len(works), [work.scopes for work in works])
        return [
            tuple(_shot(found[key], named) for key in own if key in found and sees(work.scopes, found[key]))
            for work, own, named in zip(works, keys, names, strict=True)
        ]

    def _nearest(self, work: Work) -> list[str]:
        seen = seen_by(work)
        order = np.argsort(seen.machine, kind="stable")[: self._limit]
        return [str(seen.near.keys[place]) for place in order.tolist()]


def _shot(payload: Payload, names: Mapping[str, str]) -> Shot:
    """Leaves out retired tags, and those that the content may not see."""
    accepted, rejected = (
        tuple(names[tag] for tag in texts(payload, field) if tag in names) for field in ("accepted", "rejected")
    )
    return Shot(str(payload.get("title", "")), str(payload.get("text", "")), accepted, rejected)
