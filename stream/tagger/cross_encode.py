"""Stage `cross_encoder`: a model reads content and tag together for the best candidates, and second trees rescore."""

import asyncio
from collections.abc import Sequence

from tagbus.stream.rank.candidates import Scored, SecondRanker, gather, split
from tagbus.stream.rank.cross_encoder.model import CrossEncoder
from tagbus.stream.rank.cross_encoder.pairs import Wording
from tagbus.stream.recall.pool import Numbers
from tagbus.stream.tagger.halves import by_halves
from tagbus.stream.tagger.rank import Learnt, seen_by
from tagbus.stream.tagger.work import Work


class CrossEncode:
    """The stage after `rank`, for a ranker that was trained with this cross-encoder."""

    def __init__(self, name: str, cross_encoder: CrossEncoder, second: SecondRanker, numbers: Numbers) -> None:
        """`numbers` maps tags to the ranker's numbers."""
        self.name = name
        self._cross_encoder = cross_encoder
        self._second = second
        self._numbers = numbers

    async def run(self, works: Sequence[Work]) -> None:
        """See `Stage`."""
        await by_halves(works, self._read)

    async def _read(self, works: Sequence[Work]) -> None:
        """Raises Poison if the model fails on one of the contents."""
        rows, tags, rated = gather([_scored(work) for work in works])
        asked = self._second.asked(rows, tags, rated)
        wording = Wording([work.text for work in works], self._numbers.ids, works[0].payloads)
        found = await self._cross_encoder.rate(wording.pairs(rows[asked], tags[asked]))
        again = await asyncio.to_thread(self._second.rate, tags, rated, asked, found)
        for work, scored in zip(works, split(rows, tags, again, len(works)), strict=True):
            work.scored = scored
            work.ranking = Learnt(scored, self._second.columns, self._numbers, seen_by(work))


def _scored(work: Work) -> Scored:
    if work.scored is None:
        raise RuntimeError(f"nothing was ranked for content {work.content.id!r}")
    return work.scored
