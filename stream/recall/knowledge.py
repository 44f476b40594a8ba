"""Knowledge retrieval for prompts: the segments most similar to a content that are valid now and visible to it.

Retrieved knowledge injection of LLM4Tag (arXiv 2502.13481, section 3.2.2): at most 3 segments by the similarity of the
vectors. Stores filter by validity as they search, so expired segments never displace valid ones, however many there
are, and are never returned although memory still holds them. So nothing has to remove them.
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
    """A segment of knowledge retrieved for a content: its cosine, and its payload."""

    id: str
    kind: str
    title: str
    text: str
    similarity: float


def now() -> datetime:
    """The current time of this machine."""
    return datetime.now(UTC)


class KnowledgeRetrieval:
    """Retrieves segments from one store of knowledge."""

    def __init__(self, store: Store, settings: KnowledgeSettings, fitted: RecallDefaults, clock: Clock = now) -> None:
        """`fitted`: the release's; segments share the similarity threshold of tags unless the settings override it."""
        self._store = store
        self._limit = settings.segments
        self._threshold = fitted.c2t_threshold if settings.threshold is None else settings.threshold
        self._clock = clock

    async def retrieve(self, vectors: Vectors, scopes: Scopes = None) -> list[list[Segment]]:
        """At most `segments` of them for each content [n, d], most similar first, all as of one time.

        Raises DependencyDown if the store does not answer.
        """
        at = self._clock()
        hits = await self._store.search(vectors, self._limit, scopes, at)
        hits = hits.where(hits.scores.astype(np.float64) >= self._threshold)
        payloads = await self._store.fetch(sorted(set(hits.keys.tolist())))
        # Since the search another segment may have taken the key, or none has it.
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
