"""The tagger: contents in, tags or failures out. The stream, the batch command and the evaluation share it.

It is independent of Kafka. It runs a list of stages over one `Work` per content, in the order of the arrows in DESIGN:
prepare, encode, recall, rank, and any stages after them; then select and calibrate build the result.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tagbus.stream import telemetry
from tagbus.stream.contract.events import Content, TaggedContent, Versions
from tagbus.stream.errors import Retryable
from tagbus.stream.tagger.work import Delayed, Failure, Outcome, Stage, Work
from tagbus.stream.telemetry import traces

# Returns the applied offset of each partition of `tags`.
Taxonomy = Callable[[], Mapping[str, int]]
Features = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Explained:
    """A content's result, and the state that the stages left."""

    result: TaggedContent
    work: Work

    @property
    def features(self) -> Mapping[str, Features]:
        """The ranker's features of each selected tag, by the tag's id; empty without a ranker."""
        ranking = self.work.ranking
        read = {} if ranking is None else {one.id: ranking.features(one.id) for one in self.work.candidates}
        return {tag_id: features for tag_id, features in read.items() if features is not None}


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The parts of a tagger.

    `stages` run in this order, then `closing`, which also runs when a caller stops early: it builds the result from the
    stages so far. `optional` names the stages that are skipped if their service does not answer. `release` and
    `components` are recorded in every result; `calibration` is that of the whole path, recorded even if nothing was
    scored.
    """

    release: str
    components: Mapping[str, str]
    calibration: str
    stages: Sequence[Stage]
    closing: Sequence[Stage]
    optional: frozenset[str] = field(default_factory=frozenset)


class Tagger:
    """The pipeline. `tag` is safe to call concurrently."""

    def __init__(self, pipeline: Pipeline, taxonomy: Taxonomy = dict) -> None:
        """`taxonomy`: empty if tags come from a file."""
        self._pipeline = pipeline
        self._taxonomy = taxonomy

    @property
    def stages(self) -> Sequence[Stage]:
        """The stages before the closing ones, in order, as named in this pipeline's calibrations."""
        return self._pipeline.stages

    def versions(self) -> Versions:
        """The versions of a content tagged now, if no stage is skipped."""
        return Versions(
            release=self._pipeline.release,
            taxonomy=dict(self._taxonomy()),
            components=dict(self._pipeline.components),
            calibration=self._pipeline.calibration,
        )

    async def tag(
        self, contents: Sequence[Content], until: str | None = None, deadline: float | None = None
    ) -> list[Outcome]:
        """Tag a batch: one outcome per content, in order.

        `until` names the last stage to run: a probe can stop before later, paid ones. `select` and `calibrate` run in
        any case, so naming one of them means the whole pipeline. Raises ValueError for another name. `deadline` is on
        time.monotonic(). Raises Retryable if a dependency does not answer; nothing is decided then.
        """
        return [
            outcome.result if isinstance(outcome, Explained) else outcome
            for outcome in await self.explain(contents, until, deadline)
        ]

    async def explain(
        self, contents: Sequence[Content], until: str | None = None, deadline: float | None = None
    ) -> list[Explained | Failure | Delayed]:
        """Like `tag`, with the state that the stages left."""
        # Read before the search: changes applied meanwhile may show in the tags, but a version never claims more than
        # the tags show.
        versions = self.versions()
        works = [Work(content, deadline) for content in contents]
        for stage in (*self._until(until), *self._pipeline.closing):
            if going := [work for work in works if work.outcome is None]:
                await self._run(stage, going)
        return [_outcome(work, versions) for work in works]

    async def explain_all(self, contents: Sequence[Content]) -> list[Explained | Failure]:
        """Like `explain`, but waits for delayed contents and tags them again, so every content is decided."""
        decided: dict[int, Explained | Failure] = {}
        left = list(range(len(contents)))
        while left:
            outcomes = await self.explain([contents[index] for index in left])
            late = [one.seconds for one in outcomes if isinstance(one, Delayed)]
            decided |= {index: one for index, one in zip(left, outcomes, strict=True) if not isinstance(one, Delayed)}
            left = [index for index in left if index not in decided]
            await asyncio.sleep(min(late, default=0.0))
        return [decided[index] for index in range(len(contents))]

    def _until(self, last: str | None) -> Sequence[Stage]:
        """The stages up to and including `last`; all for a closing one. Raises ValueError for an unknown stage."""
        if last is None:
            return self._pipeline.stages
        names = [stage.name for stage in self._pipeline.stages]
        closing = [stage.name for stage in self._pipeline.closing]
        if last in closing:
            return self._pipeline.stages
        if last not in names:
            raise ValueError(f"there is no stage {last!r}, expected one of {', '.join((*names, *closing))}")
        return self._pipeline.stages[: names.index(last) + 1]

    async def _run(self, stage: Stage, works: Sequence[Work]) -> None:
        """Run a stage and add it to the path of each content that it processed."""
        skipped = {id(work): len(work.degraded) for work in works}
        places = [len(work.path) for work in works]
        optional = stage.name in self._pipeline.optional
        before = [work.saved() for work in works] if optional else []
        try:
            with telemetry.STAGE_SECONDS.labels(stage=stage.name).time(), traces.step(stage.name):
                await stage.run(works)
        except Retryable as error:
            if not optional:
                raise
            # It may have rescored some contents already, and the curve of the shorter path is not for those scores.
            for work, saved in zip(works, before, strict=True):
                work.restore(saved)
                work.skip(stage.name, type(error).__name__)
            return
        for work, place in zip(works, places, strict=True):
            done = len(work.degraded) == skipped[id(work)] and stage.name not in work.left_out
            if work.outcome is None and done:
                # Steps that the stage added, as recall adds its components, come after it.
                work.path.insert(place, stage.name)


def _outcome(work: Work, versions: Versions) -> Explained | Failure | Delayed:
    if isinstance(work.outcome, Failure | Delayed):
        return work.outcome
    result = TaggedContent(
        id=work.content.id,
        tags=work.tags,
        versions=versions.model_copy(
            update={
                "calibration": work.calibration or versions.calibration,
                "prompt": work.prompt,
                "llm": work.llm,
                "backend": work.backend,
            }
        ),
        path=tuple(work.path),
        degraded=tuple(work.degraded),
        usage=work.usage,
        scopes=work.content.scopes,
        time=work.content.time,
    )
    return Explained(result, work)
