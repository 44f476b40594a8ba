"""Stage `recall`: search memory around each content and run the other recallers."""

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np

from tagbus.stream.recall.base import Query, Recaller
from tagbus.stream.recall.graph import GraphRecall
from tagbus.stream.recall.neighbours import Reach
from tagbus.stream.tagger.halves import by_halves
from tagbus.stream.tagger.work import Work


class Recall:
    """Queries the graph and the other recallers concurrently."""

    name = "recall"

    def __init__(
        self, graph: GraphRecall, recallers: Mapping[str, Sequence[Recaller]], reach: Reach | None = None
    ) -> None:
        """`recallers` by component, in path order. `reach`: the search depth in memory; default: the release's
        parameters."""
        self._graph = graph
        self._components = list(recallers)
        self._recallers = [one for some in recallers.values() for one in some]
        self._reach = reach or graph.reach

    async def run(self, works: Sequence[Work]) -> None:
        """See `Stage`."""
        await by_halves(works, self._recall)

    async def _recall(self, works: Sequence[Work]) -> None:
        """Raises Poison if a recaller fails on one of the contents.

        A model knows the tags of its training and no scopes: its scores count for the current tags that these resolve
        to, among those that a content may see.
        """
        ids = [work.content.id for work in works]
        vectors = np.array([work.vector for work in works], np.float32)
        scopes = [work.scopes for work in works]
        query = Query(ids, [work.text for work in works], vectors, scopes)
        seen, said = await asyncio.gather(
            self._graph.look(ids, vectors, self._reach, scopes),
            asyncio.gather(*(one.recall(query) for one in self._recallers)),
        )
        lists = [await self._graph.standing.listing(one, scopes) for one in said]
        for row, (work, around) in enumerate(zip(works, seen, strict=True)):
            work.seen = around
            work.found = {one.name: found[row] for one, found in zip(self._recallers, lists, strict=True)}
            work.path += self._components
