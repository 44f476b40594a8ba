"""Knowledge for a content: the segments most like it that hold now and that it may see, for a prompt.

Retrieved knowledge injection of LLM4Tag (arXiv 2502.13481, section 3.2.2): at most 3 segments by the similarity of the
vectors. Stores filter by validity as they search, so segments that have expired take no valid one's place, however
many there are, and none is returned although memory still holds it. So nothing has to remove them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

import numpy as np

from tagbus.stream.config import KnowledgeSettings
from tagbus.stream.encoder.release import RecallDefaults
from tagbus.stream.memory.store import Payload, Scopes, Store, Vectors
from tagbus.stream.memory.validity import is_valid

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of knowledge that was retrieved for a content: its cosine, and what memory keeps of it."""

    id: str
    kind: str
    title: str
    text: str
    similarity: float


def now() -> datetime:
    """The time of this machine."""
    return datetime.now(UTC)


class KnowledgeRetrieval:
    """Segments from one store of knowledge."""

    def __init__(self, store: Store, settings: KnowledgeSettings, fitted: RecallDefaults, clock: Clock = now) -> None:
        """`fitted`: of the release; a segment is as like a content as a tag, unless the settings say otherwise."""
        self._store = store
        self._limit = settings.segments
        self._threshold = fitted.c2t_threshold if settings.threshold is None else settings.threshold
        self._clock = clock

    async def retrieve(self, vectors: Vectors, scopes: Scopes = None) -> list[list[Segment]]:
        """At most `segments` of them for each content [n, d], most similar first, all of one moment.

        Raises DependencyDown if the store does not answer.
        """
        at = self._clock()
        hits = await self._store.search(vectors, self._limit, scopes, at)
        hits = hits.where(hits.scores.astype(np.float64) >= self._threshold)
        payloads = await self._store.fetch(sorted(set(hits.keys.tolist())))
        # Another one may stand under the key since the search, or none.
        valid = {key: payload for key, payload in payloads.items() if is_valid(payload, at)}
        return [
            [
                _segment(key, valid[key], score)
                for key, score in zip(one.keys.tolist(), one.scores.tolist(), strict=True)
                if key in valid
            ]
            for one in hits
        ]


def _segment(key: str, payload: Payload, similarity: float) -> Segment:
    kind, title, text = (cast(str, payload[field]) for field in ("kind", "title", "text"))
    return Segment(key, kind, title, text, round(similarity, 4))
