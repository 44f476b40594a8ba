"""The recall of the vector store against an exact search."""

import asyncio
from collections.abc import Sequence
from typing import Final

from tagbus.stream.acceptance.report import Finding
from tagbus.stream.acceptance.run import Run
from tagbus.stream.app import assemble, filling
from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Content, Exemplar, Knowledge, Tag
from tagbus.stream.memory import Vectors

LIMIT: Final = 20
QUERIES: Final = 100
# Minimum recall; below it the search is too coarse (memory.hnsw_ef).
LEAST: Final = 0.95


class Recall:
    """The check, with the events in memory."""

    def __init__(self, tags: Sequence[Tag], exemplars: Sequence[Exemplar], contents: Sequence[Content]) -> None:
        self._events: dict[str, Sequence[Tag | Exemplar | Knowledge]] = {"tags": tags, "exemplars": exemplars}
        self._texts = [f"{one.title}\n{one.text}" for one in contents[:QUERIES]]

    def __call__(self, run: Run) -> Finding:
        """Compare the neighbours of some contents in the configured store with those in the exact one."""
        kind = run.settings.memory.kind
        if kind == "exact":
            words = "TAGBUS_MEMORY__KIND=exact compares every vector"
            return Finding(name="recall", verdict="passed", words=words, figures={"recall_at_20": 1.0})
        found = asyncio.run(self._measured(run.settings))
        words = f"memory.kind={kind} finds {found:.1%} of the {LIMIT} nearest exemplars, expected {LEAST:.0%} at least"
        verdict = "passed" if found >= LEAST else "failed"
        return Finding(name="recall", verdict=verdict, words=words, figures={"recall_at_20": round(found, 4)})

    async def _measured(self, settings: Settings) -> float:
        exact = settings.memory.model_copy(update={"kind": "exact"})
        async with assemble.opened(settings) as stack:
            if settings.memory.kind != "server":
                # The indexer has filled a shared store.
                await self._fill(stack)
            vectors = await stack.encoder.encode(self._texts)
            own = await _nearest(stack, vectors)
        async with assemble.opened(settings.model_copy(update={"memory": exact})) as reference:
            await self._fill(reference)
            right = await _nearest(reference, vectors)
        return sum(len(one & other) for one, other in zip(own, right, strict=True)) / sum(map(len, right))

    async def _fill(self, stack: TaggingStack) -> None:
        await filling.fill(stack.projection(), self._events, lambda _: None)


async def _nearest(stack: TaggingStack, vectors: Vectors) -> list[set[str]]:
    hits = await stack.memory.exemplars.search(vectors, LIMIT)
    return [set(one.keys.tolist()) for one in hits]
