"""Stage `select`: the best candidates of each content, with their evidence and their names by language."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

from tagbus.stream.recall.graph import SILENT, Candidate, GraphRecall, Said, translated
from tagbus.stream.tagger.work import Listing, Work


class Select:
    """Tags that people accepted first, then the best by ranking; never tags that people rejected."""

    name = "select"

    def __init__(self, graph: GraphRecall, lists: Mapping[str, str], limit: int) -> None:
        """`lists`: the list with the score of each component. `limit`: limit of tags per content."""
        self._graph = graph
        self._lists = lists
        self._limit = limit

    async def run(self, works: Sequence[Work]) -> None:
        """See `Stage`."""
        chosen = [self._candidates(work) for work in works]
        await self._graph.standing.learn_broader(one.id for some in chosen for one in some)
        for work, candidates in zip(works, chosen, strict=True):
            ids = {one.id for one in candidates}
            work.candidates = [self._placed(one, ids, work.scopes) for one in candidates]

    def _placed(self, candidate: Candidate, others: Container[str], scopes: frozenset[str]) -> Candidate:
        """The candidate with its broader tags in the evidence."""
        broader = tuple(one for one in self._graph.standing.broader(candidate.id, scopes) if one in others)
        if not broader:
            return candidate
        return replace(candidate, evidence=candidate.evidence.model_copy(update={"broader": broader}))

    def _candidates(self, work: Work) -> list[Candidate]:
        seen, ranking = work.seen, work.ranking
        if seen is None or ranking is None:
            return []
        # Accepted tags may be among the best, so ask for that many more; a ranker has already dropped rejected ones.
        order = ranking.best(self._limit + len(seen.accepted))
        found, unjudged = work.found, ranking.unjudged
        picked = self._graph.pick(
            order, seen, work.names, self._limit, lambda tag_id: self._said(found, tag_id, unjudged(tag_id))
        )
        return [
            # `replace` takes 1.2 µs, not 0.5, for each tag of each content.
            Candidate(one.id, one.name, one.score, one.evidence, ranking.stage, translated(work.payloads[one.id]))
            for one in picked
        ]

    def _said(self, found: Mapping[str, Listing], tag_id: str, unjudged: float | None) -> Said:
        """What each component found of a tag, and its score before the judge."""
        scores: dict[str, float] = {}
        matched: dict[str, str] = {}
        for component, name in self._lists.items():
            listing = found.get(name, {})
            if tag_id in listing:
                scores[component] = round(listing[tag_id], 4)
                words: Mapping[str, str] = getattr(listing, "names", {})
                if tag_id in words:
                    matched[component] = words[tag_id]
        if not scores:
            return SILENT
        return Said(scores, matched, None if unjudged is None else round(unjudged, 6))
