"""Stage `rank`: order the candidates of each content.

A learned ranker orders by its scores. Without one, the lists are fused by reciprocal rank if there are other recallers;
with memory alone, its scores give the order.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from tagbus.stream.memory.hits import Flags
from tagbus.stream.memory.store import Payload
from tagbus.stream.rank.candidates import Drawn, Ranker, Scored, facts, split
from tagbus.stream.recall.fusion import fuse
from tagbus.stream.recall.graph import Found, GraphRecall, names_by_content
from tagbus.stream.recall.neighbours import Seen
from tagbus.stream.recall.pool import Numbers, pool
from tagbus.stream.tagger.work import LEARNT, Work


@dataclass(frozen=True, slots=True)
class Listed:
    """Candidates ordered by scores without a learned ranker."""

    stage: str
    found: Found

    def best(self, count: int) -> Found:  # noqa: ARG002 - they are few
        """See `Ranking`."""
        return self.found

    def features(self, tag_id: str) -> None:  # noqa: ARG002
        """See `Ranking`."""
        return

    def unjudged(self, tag_id: str) -> None:  # noqa: ARG002
        """See `Ranking`."""
        return


@dataclass(frozen=True, slots=True)
class Learnt:
    """The order of a learned ranker; `columns` name the features."""

    scored: Scored
    columns: Sequence[str]
    numbers: Numbers
    seen: Seen

    @property
    def stage(self) -> str:
        """See `Ranking`."""
        return LEARNT

    def best(self, count: int) -> Found:
        """See `Ranking`. Ties go to the smaller tag number."""
        order = np.lexsort((self.scored.tags, -self.scored.scores))[:count]
        ids = self.numbers.ids
        tags, scores = self.scored.tags[order].tolist(), self.scored.scores[order].tolist()
        direct = self.seen.direct
        like = dict(zip(direct.keys.tolist(), direct.scores.tolist(), strict=True))
        return Found({ids[tag]: score for tag, score in zip(tags, scores, strict=True)}, like, self.seen.near)

    def features(self, tag_id: str) -> Mapping[str, float] | None:
        """See `Ranking`."""
        rows = np.flatnonzero(self.scored.tags == self.numbers.of([tag_id])[0])
        return dict(zip(self.columns, self.scored.features[rows[0]].tolist(), strict=True)) if len(rows) else None

    def unjudged(self, tag_id: str) -> None:  # noqa: ARG002
        """See `Ranking`."""
        return


class Fuse:
    """The stage without a learned ranker."""

    name = "rank"

    def __init__(self, graph: GraphRecall) -> None:
        self._graph = graph

    async def run(self, works: Sequence[Work]) -> None:
        """See `Stage`."""
        seen = [seen_by(work) for work in works]
        graphs = self._graph.score(seen)
        wanted = chain(
            *(one.scores for one in graphs),
            *chain.from_iterable(work.found.values() for work in works),
            *(one.accepted for one in seen),
        )
        await _look_up(self._graph, works, set(wanted))
        for work, graph in zip(works, graphs, strict=True):
            work.ranking = _fused(work, graph) if work.found else Listed("recall", graph)


class Rank:
    """The stage with a learned ranker."""

    name = LEARNT

    def __init__(self, graph: GraphRecall, ranker: Ranker, numbers: Numbers) -> None:
        """`numbers` maps tags to the ranker's numbers."""
        self._graph = graph
        self._ranker = ranker
        self._numbers = numbers

    async def run(self, works: Sequence[Work]) -> None:
        """See `Stage`."""
        numbers, seen = self._numbers, [seen_by(work) for work in works]
        found = {name: [work.found[name] for work in works] for name in works[0].found}
        full = pool(numbers, [work.text for work in works], seen, found)
        drawn = await asyncio.to_thread(self._ranker.draw, full)
        tags = [numbers.ids[number] for number in np.unique(drawn.tags).tolist()]
        payloads = await _look_up(self._graph, works, {*tags, *chain(*(one.accepted for one in seen))})
        known = facts(numbers, payloads)
        drawn = drawn.where(np.isin(drawn.tags, known.tags) & ~_rejected(numbers, seen, drawn))
        drawn = drawn.where(~_hidden(numbers, works, drawn))
        rated = await asyncio.to_thread(self._ranker.rate, full, drawn, known)
        for work, scored, one in zip(works, split(drawn.rows, drawn.tags, rated, len(works)), seen, strict=True):
            work.scored = scored
            work.ranking = Learnt(scored, self._ranker.columns, numbers, one)


def seen_by(work: Work) -> Seen:
    """The neighbourhood that recall found. Raises RuntimeError if recall has not run."""
    if work.seen is None:
        raise RuntimeError(f"nothing was recalled for content {work.content.id!r}")
    return work.seen


async def _look_up(graph: GraphRecall, works: Sequence[Work], tags: set[str]) -> Mapping[str, Payload]:
    """The payloads of those tags that are in force; each work gets the names of the tags visible to it."""
    payloads = await graph.facts(tags)
    shown = names_by_content(payloads, len(works), [work.scopes for work in works])
    for work, names in zip(works, shown, strict=True):
        work.payloads, work.names = payloads, names
    return payloads


def _fused(work: Work, graph: Found) -> Listed:
    ranked = [tag_id for _, tag_id in sorted((-score, tag_id) for tag_id, score in graph.scores.items())]
    return Listed("fusion", replace(graph, scores=fuse([ranked, *work.found.values()], work.names)))


def _rejected(numbers: Numbers, seen: Sequence[Seen], drawn: Drawn) -> Flags:
    """Which drawn candidates people rejected for their content."""
    pairs = [(row, tag_id) for row, one in enumerate(seen) for tag_id in one.rejected]
    if not pairs:
        return np.zeros(len(drawn.rows), np.bool_)
    tags = numbers.of([tag_id for _, tag_id in pairs])
    width = len(numbers)
    return np.isin(drawn.rows * width + drawn.tags, np.array([row for row, _ in pairs]) * width + tags)


def _hidden(numbers: Numbers, works: Sequence[Work], drawn: Drawn) -> Flags:
    """Which drawn candidates are outside the scopes of their content."""
    hidden = np.zeros(len(drawn.rows), np.bool_)
    for row, work in enumerate(works):
        if len(work.names) < len(work.payloads):
            unseen = numbers.of([tag_id for tag_id in work.payloads if tag_id not in work.names])
            hidden |= (drawn.rows == row) & np.isin(drawn.tags, unseen)
    return hidden
