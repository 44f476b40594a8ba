"""Stage `hierarchy`: the broader tags of those that a content gets are left out, or added.

Without it they stay as they were found. It comes after `calibrate`, so that only tags that are returned count.
"""

from collections.abc import Iterator, Mapping, Sequence

from tagbus.stream.contract.events import Evidence, ScoredTag
from tagbus.stream.memory.store import Payload
from tagbus.stream.recall.graph import GraphRecall, translated
from tagbus.stream.tagger.work import HIERARCHY, Work


class WithoutBroader:
    """Leaves out the tags that are broader than another one of the content, but for those that people accepted."""

    name = HIERARCHY

    async def run(self, works: Sequence[Work]) -> None:
        """See `Stage`."""
        for work in works:
            above = {one for tag in work.tags for one in tag.evidence.broader}
            work.tags = tuple(tag for tag in work.tags if tag.id not in above or tag.evidence.decided)


class WithBroader:
    """Adds every broader tag that the content may see, but for those that people rejected.

    It is at least as sure as the surest tag that it is broader than, whose score and confidence it gets.
    """

    name = HIERARCHY

    def __init__(self, graph: GraphRecall) -> None:
        self._graph = graph

    async def run(self, works: Sequence[Work]) -> None:
        """See `Stage`. `select` has looked up what lies above each candidate."""
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
