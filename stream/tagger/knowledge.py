"""Stage `knowledge`: the segments of knowledge for a content's prompt."""

from collections.abc import Sequence

import numpy as np

from tagbus.stream.recall.knowledge import KnowledgeRetrieval
from tagbus.stream.tagger.work import Work


class Retrieve:
    """Retrieves knowledge. It scores nothing, and is omitted if nothing reads `Work.knowledge`."""

    name = "knowledge"

    def __init__(self, knowledge: KnowledgeRetrieval) -> None:
        self._knowledge = knowledge

    async def run(self, works: Sequence[Work]) -> None:
        """See `Stage`."""
        vectors = np.array([work.vector for work in works], np.float32)
        found = await self._knowledge.retrieve(vectors, [work.scopes for work in works])
        for work, segments in zip(works, found, strict=True):
            work.knowledge = segments
