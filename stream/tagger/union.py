"""The union of all recallers: what each found for a content, put into one order, and which recaller gave what."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from typing import Final

import numpy as np

from tagbus.stream.memory.store import Payload, Scopes, Vectors
from tagbus.stream.rank.candidates import Drawn, Ranker, Rated, best, facts
from tagbus.stream.rank.cross_encoder import Wording
from tagbus.stream.recall.base import Query, Recaller
from tagbus.stream.recall.graph import Candidate, Found, GraphRecall, Stage, names_by_content
from tagbus.stream.recall.neighbours import Seen
from tagbus.stream.recall.pool import Flags, Numbers, pool

# Reciprocal rank fusion: a tag at rank r (from 0) of a list gets 1 / (60 + r + 1).
FUSION: Final = 60

# What evidence says of a recaller's list: the component, and the name of the list.
SCORED: Final = {"heads": "heads", "labeltree": "labeltree", "second_encoder": "second_encoder_votes"}

# What one recaller found for one content: tag ids with its scores, best first.
Listing = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Order:
    """One content's candidates with their scores, and what a ranker saw of each."""

    scores: Listing
    features: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


class Recall:
    """Graph recall, other recallers beside it, and a ranker over all that they find.

    With neither others nor ranker it is graph recall. With others the lists are fused by reciprocal ranks (Cormack et
    al. 2009, SIGIR). With a ranker its scores decide.
    """

    def __init__(self, graph: GraphRecall, others: Sequence[Recaller] = (), ranker: Ranker | None = None) -> None:
        self._graph = graph
        self._others = others
        self._ranker = ranker
        self._numbers = Numbers(ranker.known if ranker else (), graph.numbers)

    async def recall(
        self, ids: Sequence[str], texts: Sequence[str], vectors: Vectors, limit: int, scopes: Scopes = None
    ) -> list[list[Candidate]]:
        """At most `limit` candidates, best first, of each content `ids` with its text and unit vector [n, d].

        A content's own exemplars never vote for it. Tags that people accepted for it come first and those that they
        rejected never come. Retired and unknown tags never come, nor those that its scopes do not see. Raises
        DependencyDown when the memory or what a recaller asks does not answer.
        """
        query = Query(ids, texts, vectors, scopes)
        if not ids or (not self._others and self._ranker is None):
            return await self._graph.recall(ids, vectors, limit, scopes)
        reach = self._ranker.reach if self._ranker else self._graph.reach
        seen, lists = await asyncio.gather(
            self._graph.look(ids, vectors, reach, scopes),
            asyncio.gather(*(other.recall(query) for other in self._others)),
        )
        found = dict(zip((other.name for other in self._others), lists, strict=True))
        if self._ranker is None:
            return await self._fused(query, seen, found, limit)
        return await self._ranked(self._ranker, query, seen, found, limit)

    async def _fused(
        self, query: Query, seen: Sequence[Seen], found: Mapping[str, Sequence[Listing]], limit: int
    ) -> list[list[Candidate]]:
        graphs = self._graph.score(seen)
        wanted = chain(*(graph.scores for graph in graphs), *chain(*found.values()), *(one.accepted for one in seen))
        shown = names_by_content(await self._graph.facts(set(wanted)), len(seen), query.scopes)
        picked = []
        for row, (graph, one, names) in enumerate(zip(graphs, seen, shown, strict=True)):
            listings = {name: each[row] for name, each in found.items()}
            ranked = [tag_id for _, tag_id in sorted((-score, tag_id) for tag_id, score in graph.scores.items())]
            order = Found(_fuse([ranked, *listings.values()], names), graph.like, graph.near)
            candidates = self._graph.pick(order, one, names, limit)
            picked.append([_finish(each, "fusion", listings) for each in candidates])
        return picked

    async def _ranked(
        self,
        ranker: Ranker,
        query: Query,
        seen: Sequence[Seen],
        found: Mapping[str, Sequence[Listing]],
        limit: int,
    ) -> list[list[Candidate]]:
        numbers = self._numbers
        full = pool(numbers, query.texts, seen, found)
        drawn = await asyncio.to_thread(ranker.draw, full)
        tags = [numbers.ids[number] for number in np.unique(drawn.tags).tolist()]
        payloads = await self._graph.facts({*tags, *chain(*(one.accepted for one in seen))})
        known = facts(numbers, payloads)
        drawn = drawn.where(np.isin(drawn.tags, known.tags) & ~_rejected(numbers, seen, drawn))
        shown = names_by_content(payloads, len(seen), query.scopes)
        drawn = drawn.where(~_hidden(numbers, payloads, shown, drawn))
        rated = await asyncio.to_thread(ranker.rate, full, drawn, known)
        if ranker.second is not None:
            rated = await ranker.second.rate(drawn, rated, Wording(query.texts, numbers.ids, payloads))
        orders = _best(numbers, drawn, rated, limit + max(len(one.accepted) for one in seen), ranker.columns, len(seen))
        picked = []
        for row, (order, one, names) in enumerate(zip(orders, seen, shown, strict=True)):
            listings = {name: each[row] for name, each in found.items()}
            candidates = self._graph.pick(_around(one, order), one, names, limit)
            picked.append([_finish(each, "rank", listings, order.features) for each in candidates])
        return picked


def _fuse(lists: Iterable[Iterable[str]], names: Mapping[str, str]) -> dict[str, float]:
    """The sum over the lists of 1 / (60 + rank), of tags in force; those that are not take no rank."""
    scores: dict[str, float] = {}
    for one in lists:
        for rank, tag_id in enumerate((tag_id for tag_id in one if tag_id in names), start=1):
            scores[tag_id] = scores.get(tag_id, 0.0) + 1 / (FUSION + rank)
    return scores


def _rejected(numbers: Numbers, seen: Sequence[Seen], drawn: Drawn) -> Flags:
    """Which of the drawn candidates people rejected for that content."""
    pairs = [(row, tag_id) for row, one in enumerate(seen) for tag_id in one.rejected]
    if not pairs:
        return np.zeros(len(drawn.rows), np.bool_)
    tags = numbers.of([tag_id for _, tag_id in pairs])
    width = len(numbers)
    return np.isin(drawn.rows * width + drawn.tags, np.array([row for row, _ in pairs]) * width + tags)


def _hidden(
    numbers: Numbers, payloads: Mapping[str, Payload], shown: Sequence[Mapping[str, str]], drawn: Drawn
) -> Flags:
    """Which of the drawn candidates their content's scopes do not see."""
    hidden = np.zeros(len(drawn.rows), np.bool_)
    for row, names in enumerate(shown):
        if len(names) < len(payloads):
            unseen = numbers.of([tag_id for tag_id in payloads if tag_id not in names])
            hidden |= (drawn.rows == row) & np.isin(drawn.tags, unseen)
    return hidden


def _best(
    numbers: Numbers, drawn: Drawn, rated: Rated, limit: int, columns: Sequence[str], contents: int
) -> list[_Order]:
    """The `limit` best of each content."""
    order = best(drawn.rows, drawn.tags, rated.scores, limit)
    tags = [numbers.ids[number] for number in drawn.tags[order].tolist()]
    scores = rated.scores[order].tolist()
    features = [dict(zip(columns, each, strict=True)) for each in rated.features[order].tolist()]
    bounds = np.searchsorted(drawn.rows[order], np.arange(contents + 1)).tolist()
    slices = [slice(*pair) for pair in pairwise(bounds)]
    return [
        _Order(
            dict(zip(tags[each], scores[each], strict=True)),
            dict(zip(tags[each], features[each], strict=True)),
        )
        for each in slices
    ]


def _around(seen: Seen, order: _Order) -> Found:
    """The ranker's order with the evidence of memory."""
    like = dict(zip(seen.direct.keys.tolist(), seen.direct.scores.tolist(), strict=True))
    return Found(order.scores, like, seen.near)


def _finish(
    candidate: Candidate,
    stage: Stage,
    listings: Mapping[str, Listing],
    features: Mapping[str, Mapping[str, float]] | None = None,
) -> Candidate:
    """The candidate with its stage, and the evidence of the recallers beside the graph."""
    tag = candidate.id
    given = ((component, listings.get(name, {}).get(tag)) for component, name in SCORED.items())
    scores = {component: round(score, 4) for component, score in given if score is not None}
    literal = listings.get("literal", {})
    names: Mapping[str, str] = getattr(literal, "names", {})
    matched = {"literal": names.get(tag, candidate.name)} if tag in literal else {}
    said = {"scores": scores, "matched": matched}
    evidence = candidate.evidence.model_copy(update=said) if scores or matched else candidate.evidence
    return replace(candidate, stage=stage, evidence=evidence, features=features.get(tag) if features else None)
