"""The tagger: contents in, tags or failures out. One object for the stream, the batch command and the evaluation.

It knows nothing of Kafka. Steps: encode, recall (graph, literal names, heads, label trees, second encoder), rank (with
a
cross-encoder), calibrate.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tagbus.stream import telemetry
from tagbus.stream.calibrate import Calibration
from tagbus.stream.config import TaggerSettings
from tagbus.stream.contract.events import Content, ScoredTag, TaggedContent, Versions
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.encoder.base import Encoder, Vectors
from tagbus.stream.encoder.release import content_text
from tagbus.stream.errors import Fatal, FieldError, Poison, Retryable, Untaggable, shorten
from tagbus.stream.recall.graph import Candidate
from tagbus.stream.tagger.union import Recall

# What people decided is as sure as anything gets, and a confidence stays inside (0, 1).
DECIDED = 0.9999

Taxonomy = Callable[[], Mapping[str, int]]
Features = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What gives the scores: the names of the release, and of heads, label trees, second encoder, ranker and
    cross-encoder
    where they are on."""

    release: str
    literal: bool = False
    heads: str | None = None
    labeltree: str | None = None
    second_encoder: str | None = None
    ranker: str | None = None
    cross_encoder: str | None = None

    @property
    def fingerprint(self) -> Fingerprint:
        """Which scores these are: what a calibration is fitted to."""
        return Fingerprint(self.release, "+".join(self.path[1:-1]), self.components)

    @property
    def components(self) -> dict[str, str]:
        """The versions of those that are on."""
        versions = {
            "heads": self.heads,
            "labeltree": self.labeltree,
            "second_encoder": self.second_encoder,
            "ranker": self.ranker,
            "cross_encoder": self.cross_encoder,
        }
        return {component: version for component, version in versions.items() if version is not None}

    @property
    def path(self) -> tuple[str, ...]:
        """The steps that a content goes through."""
        more = {
            "literal": self.literal,
            "heads": self.heads,
            "labeltree": self.labeltree,
            "second_encoder": self.second_encoder,
            "rank": self.ranker,
            "cross_encoder": self.cross_encoder,
        }
        return ("encode", "recall", *(step for step, on in more.items() if on), "calibrate")


@dataclass(frozen=True, slots=True)
class Failure:
    """A content that can never be tagged, and why."""

    id: str
    error: Poison


@dataclass(frozen=True, slots=True)
class Explained:
    """A content's result, and what a ranker saw of each of its tags, by tag id; nothing without a ranker."""

    result: TaggedContent
    features: Mapping[str, Features]


class Tagger:
    """The pipeline. `tag` may be called several times at once."""

    def __init__(
        self,
        encoder: Encoder,
        recall: Recall,
        calibration: Calibration,
        settings: TaggerSettings,
        taxonomy: Taxonomy = dict,
        pipeline: Pipeline | None = None,
    ) -> None:
        """`taxonomy` gives the applied offset of each partition of `tags`; empty where tags come from a file.

        `pipeline` is what `recall` is made of, graph recall alone if not given. Raises ReleaseMismatch for a
        calibration that is fitted to another.
        """
        self._pipeline = pipeline or Pipeline(encoder.release.name)
        calibration.match(self._pipeline.fingerprint, f"calibration {calibration.name}")
        self._encoder = encoder
        self._recall = recall
        self._calibration = calibration
        self._settings = settings
        self._taxonomy = taxonomy

    def versions(self) -> Versions:
        """What a content that is tagged now is tagged by."""
        return Versions(
            release=self._pipeline.release,
            taxonomy=dict(self._taxonomy()),
            components=self._pipeline.components,
            calibration=self._calibration.name,
        )

    async def tag(self, contents: Sequence[Content]) -> list[TaggedContent | Failure]:
        """Tag a batch: results of the same length in the same order.

        Raises Retryable when the encoder or the memory does not answer: nothing has been decided then.
        """
        return [outcome if isinstance(outcome, Failure) else outcome.result for outcome in await self.explain(contents)]

    async def explain(self, contents: Sequence[Content]) -> list[Explained | Failure]:
        """As `tag`, with what a ranker saw of each tag."""
        # Read before the search: whatever is applied meanwhile may show in the tags, never the other way round.
        versions = self.versions()
        texts = [content_text(content.title, content.text) for content in contents]
        outcomes = await self._encode(texts)
        good = [index for index, outcome in enumerate(outcomes) if not isinstance(outcome, Poison)]
        vectors = np.array([outcomes[index] for index in good], dtype=np.float32).reshape(
            len(good), self._encoder.release.dimension
        )
        with telemetry.RECALL_SECONDS.time():
            ids, scopes = [contents[index].id for index in good], [frozenset(contents[index].scopes) for index in good]
            some = [texts[index] for index in good]
            recalled = await self._recall.recall(ids, some, vectors, self._settings.tags, scopes)
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

    def _result(self, content: Content, candidates: Sequence[Candidate], versions: Versions) -> Explained:
        scores = np.array([candidate.score for candidate in candidates], dtype=np.float64)
        confidences = self._calibration.apply(scores).tolist()
        tags = (_scored(*pair) for pair in zip(candidates, confidences, strict=True))
        result = TaggedContent(
            id=content.id,
            tags=tuple(tag for tag in tags if tag.confidence >= self._settings.least_confidence),
            versions=versions,
            path=self._pipeline.path,
            scopes=content.scopes,
            time=content.time,
        )
        return Explained(result, {one.id: one.features for one in candidates if one.features is not None})


def _scored(candidate: Candidate, confidence: float) -> ScoredTag:
    decided = candidate.evidence.decided
    return ScoredTag(
        id=candidate.id,
        name=candidate.name,
        score=round(candidate.score, 6),
        confidence=DECIDED if decided else round(confidence, 4),
        stage="people" if decided else candidate.stage,
        evidence=candidate.evidence,
    )


def _untaggable(text: str, error: Exception) -> Untaggable:
    wrong = FieldError("text", shorten(text), f"a text that the encoder takes ({type(error).__name__}: {error})")
    return Untaggable("encode", (wrong,))
