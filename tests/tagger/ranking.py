"""The stages from recall to select, for tests that are about candidates and their order."""

from collections.abc import Sequence
from dataclasses import dataclass

from tagbus.stream.contract.events import Content
from tagbus.stream.memory.store import Vectors
from tagbus.stream.rank.candidates import Ranker, SecondRanker
from tagbus.stream.rank.cross_encoder.model import CrossEncoder
from tagbus.stream.recall.base import Recaller
from tagbus.stream.recall.graph import Candidate, GraphRecall
from tagbus.stream.recall.pool import Numbers
from tagbus.stream.tagger import Stage, Work
from tagbus.stream.tagger.cross_encode import CrossEncode
from tagbus.stream.tagger.rank import Fuse, Rank
from tagbus.stream.tagger.recall import Recall
from tagbus.stream.tagger.select import Select


@dataclass
class Stages:
    """Graph recall, other recallers beside it, and the ranker. Each recaller is a component."""

    graph: GraphRecall
    others: Sequence[Recaller] = ()
    ranker: Ranker | None = None
    cross_encoder: CrossEncoder | None = None
    second_stage: SecondRanker | None = None

    async def recall(
        self,
        ids: Sequence[str],
        texts: Sequence[str],
        vectors: Vectors,
        limit: int,
        scopes: Sequence[frozenset[str]] | None = None,
    ) -> list[list[Candidate]]:
        """The candidates of each content, best first, at most `limit`. No content has a scope if none are given."""
        return [list(work.candidates) for work in await self.works(ids, texts, vectors, limit, scopes)]

    async def works(
        self,
        ids: Sequence[str],
        texts: Sequence[str],
        vectors: Vectors,
        limit: int,
        scopes: Sequence[frozenset[str]] | None = None,
    ) -> list[Work]:
        """Each content after the last stage."""
        each = scopes or [frozenset()] * len(ids)
        contents = [Content.model_construct(id=key, scopes=tuple(of)) for key, of in zip(ids, each, strict=True)]
        works = [
            Work(content, text=text, vector=vector)
            for content, text, vector in zip(contents, texts, vectors, strict=True)
        ]
        if works:
            for stage in self._stages(limit):
                await stage.run(works)
        return works

    def _stages(self, limit: int) -> list[Stage]:
        components = {one.name: [one] for one in self.others}
        select = Select(self.graph, {name: name for name in components}, limit)
        if self.ranker is None:
            return [Recall(self.graph, components), Fuse(self.graph), select]
        numbers = Numbers(self.ranker.known, self.graph.numbers)
        stages = [
            Recall(self.graph, components, self.ranker.reach),
            Rank(self.graph, self.ranker, numbers),
        ]
        if self.cross_encoder is not None and self.second_stage is not None:
            stages.append(CrossEncode("cross_encoder", self.cross_encoder, self.second_stage, numbers))
        return [*stages, select]
