"""Stage `hierarchy`: drop or add the broader tags of a content's tags.

Without it tags stay as found. It runs after `calibrate`, so that only returned tags count.
"""

from collections.abc import Iterator, Mapping, Sequence

from tagbus.stream.contract.events import Evidence, ScoredTag
from tagbus.stream.memory.store import Payload
from tagbus.stream.recall.graph import GraphRecall, translated
from tagbus.stream.tagger.work import HIERARCHY, Work


class WithoutBroader:
    """Drops tags that are broader than another of the content's tags, except those that people accepted. Of tags that
    are broader than each other, in a cycle, none is the broader one."""

    name = HIERARCHY

    async def run(self, works: Sequence[Work]) -> None:
        """See `Stage`."""
        for work in works:
            above_of = {tag.id: tag.evidence.broader for tag in work.tags}
            above = {one for tag, broader in above_of.items() for one in broader if tag not in above_of.get(one, ())}
            work.tags = tuple(tag for tag in work.tags if tag.id not in above or tag.evidence.decided)


class WithBroader:
    """Adds every broader tag that the content may see, except those that people rejected.

    It is at least as certain as its most confident narrower tag, whose score and confidence it gets.
    """

    name = HIERARCHY

    def __init__(self, graph: GraphRecall) -> None:
        self._graph = graph

    async def run(self, works: Sequence[Work]) -> None:
        """See `Stage`. `select` has looked up the ancestors of each candidate."""
        narrower = [self._narrower(work) for work in works]
        payloads = await self._graph.facts({tag_id for one in narrower for tag_id in one})
        for work, found in zip(works, narrower, strict=True):
            tags = [*work.tags, *_added(found, payloads)]
            work.tags = tuple(sorted(tags, key=lambda tag: -tag.confidence))

    def _narrower(self, work: Work) -> Mapping[str, list[ScoredTag]]:
        """The tags to add, each with those of the content that it is broader than, best first."""
        kept = {tag.id for tag in work.tags} | (work.seen.rejected if work.seen else frozenset())
        found: dict[str, list[ScoredTag]] = {}
        for tag in work.tags:
            for one in self._graph.standing.broader(tag.id, work.scopes):
                if one not in kept:
                    found.setdefault(one, []).append(tag)
        return found


def _added(narrower: Mapping[str, list[ScoredTag]], payloads: Mapping[str, Payload]) -> Iterator[ScoredTag]:
    for tag_id, below in narrower.items():
        if tag_id in payloads:
            surest = max(below, key=lambda tag: tag.confidence)
            yield ScoredTag(
                id=tag_id,
                name=str(payloads[tag_id]["name"]),
                names=dict(translated(payloads[tag_id])),
                score=surest.score,
                confidence=surest.confidence,
                stage=HIERARCHY,
                evidence=Evidence(narrower=tuple(tag.id for tag in below)),
            )
