"""The tagger: contents in, tags or failures out. One object for the stream, the batch command and the evaluation.

It knows nothing of Kafka. Steps: encode, recall, calibrate.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tagbus.stream import telemetry
from tagbus.stream.calibrate import Calibration
from tagbus.stream.config import TaggerSettings
from tagbus.stream.contract.events import Content, ScoredTag, TaggedContent, Versions
from tagbus.stream.encoder.base import Encoder, Vectors
from tagbus.stream.encoder.release import content_text
from tagbus.stream.errors import Complaint, Fatal, Poison, Retryable, Untaggable, shorten
from tagbus.stream.recall.graph import Candidate, GraphRecall

# What people decided is as sure as anything gets, and a confidence stays inside (0, 1).
DECIDED = 0.9999

Taxonomy = Callable[[], Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Failure:
    """A content that can never be tagged, and why."""

    id: str
    error: Poison


class Tagger:
    """The pipeline. `tag` may be called several times at once."""

    def __init__(
        self,
        encoder: Encoder,
        recall: GraphRecall,
        calibration: Calibration,
        settings: TaggerSettings,
        taxonomy: Taxonomy = dict,
    ) -> None:
        """`taxonomy` gives the applied offset of each partition of `tags`; empty where tags come from a file."""
        self._encoder = encoder
        self._recall = recall
        self._calibration = calibration
        self._settings = settings
        self._taxonomy = taxonomy

    def versions(self) -> Versions:
        """What a content that is tagged now is tagged by."""
        return Versions(
            release=self._encoder.release.name, calibration=self._calibration.name, taxonomy=dict(self._taxonomy())
        )

    async def tag(self, contents: Sequence[Content]) -> list[TaggedContent | Failure]:
        """Tag a batch: results of the same length in the same order.

        Raises Retryable when the encoder or the memory does not answer: nothing has been decided then.
        """
        # Read before the search: whatever is applied meanwhile may show in the tags, never the other way round.
        versions = self.versions()
        outcomes = await self._encode([content_text(content.title, content.text) for content in contents])
        good = [index for index, outcome in enumerate(outcomes) if not isinstance(outcome, Poison)]
        vectors = np.array([outcomes[index] for index in good], dtype=np.float32).reshape(
            len(good), self._encoder.release.dimension
        )
        with telemetry.RECALL_SECONDS.time():
            ids = [contents[index].id for index in good]
            recalled = await self._recall.recall(ids, vectors, self._settings.tags)
        found = dict(zip(good, recalled, strict=True))
        return [
            Failure(content.id, outcome)
            if isinstance(outcome, Poison)
            else self._result(content, found[index], versions)
            for index, (content, outcome) in enumerate(zip(contents, outcomes, strict=True))
        ]

    async def _encode(self, texts: Sequence[str]) -> list[Vectors | Poison]:
        """A vector or a failure for each text: where the batch fails, each half of it is tried."""
        try:
            with telemetry.ENCODE_SECONDS.time():
                vectors = await self._encoder.encode(texts)
            telemetry.ENCODED.inc(len(texts))
            return list(vectors)
        except (Retryable, Fatal, MemoryError):
            raise
        except Exception as error:
            if len(texts) <= 1:
                return [_untaggable(text, error) for text in texts]
        middle = len(texts) // 2
        return [*await self._encode(texts[:middle]), *await self._encode(texts[middle:])]

    def _result(self, content: Content, candidates: Sequence[Candidate], versions: Versions) -> TaggedContent:
        scores = np.array([candidate.score for candidate in candidates], dtype=np.float64)
        confidences = self._calibration.apply(scores).tolist()
        tags = (_scored(*pair) for pair in zip(candidates, confidences, strict=True))
        return TaggedContent(
            id=content.id,
            tags=tuple(tag for tag in tags if tag.confidence >= self._settings.least_confidence),
            versions=versions,
            path=("encode", "recall", "calibrate"),
            degraded=False,
            time=content.time,
        )


def _scored(candidate: Candidate, confidence: float) -> ScoredTag:
    decided = candidate.evidence.decided
    return ScoredTag(
        id=candidate.id,
        name=candidate.name,
        score=round(candidate.score, 6),
        confidence=DECIDED if decided else round(confidence, 4),
        stage="people" if decided else "recall",
        evidence=candidate.evidence,
    )


def _untaggable(text: str, error: Exception) -> Untaggable:
    complaint = Complaint("text", shorten(text), f"a text that the encoder takes ({type(error).__name__}: {error})")
    return Untaggable("encode", (complaint,))
