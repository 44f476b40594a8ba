"""Build the tagging stack from settings: encoder, memory, components, stages, calibration, tagger."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

from tagbus.stream import calibrate
from tagbus.stream.app.components import RECALL, REGISTRY, Components
from tagbus.stream.app.filling import cached_memory, fill
from tagbus.stream.app.judge.judging import NOTHING, Given, judging
from tagbus.stream.app.places.folders import base_release, model_folder
from tagbus.stream.app.stages import STAGES, Ingredients, StageFactory
from tagbus.stream.calibrate import Calibration
from tagbus.stream.config import Settings, load
from tagbus.stream.config.base.environment import named
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.encoder.base import Encoder
from tagbus.stream.encoder.open import open_encoder
from tagbus.stream.encoder.release import Release
from tagbus.stream.index.apply import Listener, Projection
from tagbus.stream.index.changes import MemoryChanges
from tagbus.stream.llm.component import NAME as JUDGE
from tagbus.stream.memory import Memory, open_memory
from tagbus.stream.memory.kinds import EXEMPLARS, KINDS, TAGS, Kind
from tagbus.stream.rank import trees
from tagbus.stream.rank.trees import RankerPart
from tagbus.stream.recall.base import Recaller
from tagbus.stream.recall.component import Component, Part, Replica, Surroundings
from tagbus.stream.recall.graph import GraphRecall
from tagbus.stream.recall.pool import Numbers
from tagbus.stream.recall.taxonomy.unseen import Unseen
from tagbus.stream.tagger import Pipeline, Stage, Tagger, Taxonomy
from tagbus.stream.tagger.calibrate import Calibrate
from tagbus.stream.tagger.hierarchy import WithBroader, WithoutBroader
from tagbus.stream.tagger.judge import JudgeStage
from tagbus.stream.tagger.select import Select

# Next to the model: the curve for recall scores alone, without components.
CALIBRATION: Final = "calibration.json"

OpenMemory = Callable[[Release, Mapping[str, Kind]], Awaitable[Memory]]


@dataclass(frozen=True, slots=True)
class Plan:
    """The components and stages that a pipeline is built from; by default all of them.

    `optional`: stages that are skipped if their service does not answer. `reads`: kinds of memory that the caller reads
    for a content besides those that recall searches. `given`: what a worker passes to its judges.
    """

    registry: Sequence[Component] = REGISTRY
    stages: Sequence[StageFactory] = STAGES
    optional: frozenset[str] = frozenset()
    reads: frozenset[str] = frozenset()
    given: Given = NOTHING


@dataclass(frozen=True, slots=True)
class TaggingStack:
    """Everything that tagging with one release needs, except what fills the memory. `parts` by component name.
    `hierarchy`: the stage that drops or adds broader tags, if the settings ask for one."""

    settings: Settings
    encoder: Encoder
    memory: Memory
    components: Components
    parts: Mapping[str, Part]
    graph: GraphRecall
    stages: Sequence[Stage]
    select: Select
    hierarchy: Sequence[Stage]
    optional: frozenset[str]

    @property
    def release(self) -> Release:
        """The release that the encoder runs."""
        return self.encoder.release

    @property
    def judged(self) -> bool:
        """Whether a judge is on."""
        return any(isinstance(stage, JudgeStage) for stage in self.stages)

    @property
    def memories(self) -> list[Memory]:
        """This memory, then those of other encoders, which hold the same records."""
        return [self.memory, *(one.memory for one in self._replicas)]

    @property
    def recallers(self) -> list[Recaller]:
        """The recallers besides the graph, in path order."""
        return list(chain.from_iterable(part.recallers for part in self.parts.values()))

    def projection(self) -> Projection:
        """Turns records of the memory topics into points."""
        replicas = [Projection(one.encoder, one.memory) for one in self._replicas]
        return Projection(self.encoder, self.memory, replicas, self._listeners)

    def changes(self) -> MemoryChanges:
        """Notifies listeners of changes if another process writes the memory."""
        return MemoryChanges(self.release, self._listeners)

    def tagger(self, curves: Iterable[Calibration] = (), taxonomy: Taxonomy = dict) -> Tagger:
        """The pipeline over this memory.

        `curves`: a calibration for each path that has one. The whole path uses the calibration of the settings unless
        one is given here. Raises ReleaseMismatch for a calibration that was fitted to something else.
        """
        known = {curve.path: curve for curve in curves}
        whole, before = self.components.scoring, self.components.before_judge
        if whole not in known:
            own = calibration_of(self.settings, self.release, self.components)
            known.setdefault(own.path, own)
        elif known[whole].judge is None and known[whole].name != calibrate.NONE:
            # Fitted to decisions alone: the scores are still fused as the settings' calibration says.
            own = calibration_of(self.settings, self.release, self.components)
            if own.path == whole and own.judge is not None:
                known[whole] = calibrate.with_judge(known[whole], own.judge)
        judge = known[whole].judge if whole in known else None
        if judge is not None and (shorter := calibrate.before_judge(known[whole], self.fingerprint(before))):
            known.setdefault(before, shorter)
        for path, curve in known.items():
            curve.match(self.fingerprint(path), f"calibration {curve.name}")

        def curve_of(path: str) -> Calibration:
            return known.get(path) or calibrate.uncalibrated(self.fingerprint(path))

        least = self.settings.tagger.least_confidence
        closing: tuple[Stage, ...] = (self.select, Calibrate(curve_of, least), *self.hierarchy)
        stages = [one.fitted(judge) if isinstance(one, JudgeStage) else one for one in self.stages]
        main = curve_of(whole if judge is not None and judge.weight else before)
        pipeline = Pipeline(self.release.name, self.components.versions, main.name, stages, closing, self.optional)
        return Tagger(pipeline, taxonomy)

    def uncalibrated(self) -> Tagger:
        """The pipeline with raw scores as confidences, for fitting a calibration."""
        return replace(self, hierarchy=()).tagger([calibrate.uncalibrated(self.fingerprint())])

    def asking(self) -> Tagger:
        """As `uncalibrated`, but the judge is asked about every content and changes no score."""
        stages = [one.asking_all() if isinstance(one, JudgeStage) else one for one in self.stages]
        return replace(self, stages=stages).uncalibrated()

    def fingerprint(self, path: str | None = None) -> Fingerprint:
        """What a calibration of `path` (default: the whole path) is fitted to."""
        return self.components.fingerprint(self.release.name, path)

    @property
    def _replicas(self) -> list[Replica]:
        return list(chain.from_iterable(part.replicas for part in self.parts.values()))

    @property
    def _listeners(self) -> dict[str, list[Listener]]:
        """The listeners of each kind that has any."""
        found: dict[str, list[Listener]] = {TAGS.name: [self.graph.standing.change]}
        if self.graph.unseen is not None:
            found[TAGS.name].append(self.graph.unseen.change)
        for kind, listener in chain.from_iterable(part.listeners.items() for part in self.parts.values()):
            found.setdefault(kind, []).append(listener)
        return found


def calibration_of(settings: Settings, release: Release, components: Components) -> Calibration:
    """The calibration of the settings, else that of a component, else the file next to the model if no component is on,
    else none. Raises ReleaseMismatch for one that was fitted to something else."""
    path = settings.tagger.calibration or components.calibration or _beside(settings, components)
    fingerprint = components.fingerprint(release.name)
    before = components.fingerprint(release.name, components.before_judge)
    if path is None:
        return calibrate.uncalibrated(fingerprint)
    with named("tagger.calibration", settings.tagger.calibration, settings.releases.folder):
        return calibrate.load(path, fingerprint, before)


def _beside(settings: Settings, components: Components) -> Path | None:
    path = model_folder(settings) / CALIBRATION
    return path if components.before_judge == RECALL and path.exists() else None


@asynccontextmanager
async def opened(settings: Settings, plan: Plan | None = None) -> AsyncIterator[TaggingStack]:
    """Open the release of encoder.folder with the configured stores. Raises as `open_encoder` does, UserError and
    ReleaseMismatch for components that do not fit, DependencyDown if a server does not answer."""

    async def memory(release: Release, kinds: Mapping[str, Kind]) -> Memory:
        return await open_memory(settings.memory, release.name, release.dimension, kinds)

    async with _stacked(settings, memory, plan or Plan()) as stack:
        yield stack


@asynccontextmanager
async def in_process(
    settings: Settings, folder: Path | None = None, plan: Plan | None = None
) -> AsyncIterator[TaggingStack]:
    """Open the release of encoder.folder over an in-process memory, with the embeddings that an earlier run left in
    `folder`. Raises as `opened` does."""
    async with _stacked(settings, partial(cached_memory, folder, settings), plan or Plan()) as stack:
        yield stack


@asynccontextmanager
async def over(stack: TaggingStack, settings: Settings, plan: Plan | None = None) -> AsyncIterator[TaggingStack]:
    """Reuse encoder and memory of a stack with the components of other settings. Raises as `opened` does.

    A component with its own memory keeps the one that the stack opened for it.
    """
    kept = {memory.release: memory for memory in stack.memories}

    async def memory(release: Release, _: Mapping[str, Kind]) -> Memory:
        return kept[release.name]

    async with AsyncExitStack() as exits:
        yield await _assembled(settings, stack.encoder, stack.memory, memory, plan or Plan(), exits)


@asynccontextmanager
async def open_tagger(
    tags: Iterable[Tag], exemplars: Iterable[Exemplar] = (), settings: Settings | None = None
) -> AsyncIterator[Tagger]:
    """A tagger for Python programs: no Kafka, and an in-process memory that holds these tags and exemplars.

    `settings` default to those of the environment. The calibration shipped in the package is fitted on the example
    data; for other data set `settings.tagger.calibration` to your own. Raises UserError and ReleaseMismatch for
    settings that do not fit, DependencyDown if an encoder server does not answer.
    """
    async with in_process(settings or load()) as stack:
        # Before the memory is encoded, so that settings that do not fit each other fail immediately.
        tagger = stack.tagger()
        await fill(stack.projection(), {TAGS.name: tags, EXEMPLARS.name: exemplars}, lambda _: None)
        yield tagger


@asynccontextmanager
async def _stacked(settings: Settings, open_: OpenMemory, plan: Plan) -> AsyncIterator[TaggingStack]:
    release = await asyncio.to_thread(base_release, settings)
    async with AsyncExitStack() as exits:
        memory = await open_(release, KINDS)
        exits.push_async_callback(memory.close)
        encoder = await open_encoder(settings.encoder, model_folder(settings))
        exits.push_async_callback(encoder.close)
        yield await _assembled(settings, encoder, memory, open_, plan, exits)


async def _assembled(
    settings: Settings, encoder: Encoder, memory: Memory, open_: OpenMemory, plan: Plan, exits: AsyncExitStack
) -> TaggingStack:
    components = await asyncio.to_thread(Components.of, settings, plan.registry)
    parts = await components.open(Surroundings(settings, encoder.release, memory, open_), exits)
    ranked = parts.get(trees.NAME)
    known = ranked.ranker.known if isinstance(ranked, RankerPart) else ()
    recall, unseen = encoder.release.recall, _unseen(settings, memory, parts)
    graph = GraphRecall(memory.tags, memory.exemplars, recall, settings.recall, settings.tagger.neighbours, unseen)
    reads = plan.reads.union(*(part.reads for part in parts.values()))
    asked = await judging(settings, memory, graph, plan.given, exits)
    made = Ingredients(settings, encoder, memory, graph, parts, Numbers(known, graph.numbers), reads, asked)
    stages = [stage for make in plan.stages if (stage := make(made)) is not None]
    scored = {one.name: one.lists[0] for one, _ in components.on if one.lists} | {JUDGE: JUDGE}
    select = Select(graph, scored, settings.tagger.tags)
    hierarchy = _hierarchy(settings, graph)
    return TaggingStack(settings, encoder, memory, components, parts, graph, stages, select, hierarchy, plan.optional)


def _unseen(settings: Settings, memory: Memory, parts: Mapping[str, Part]) -> Unseen | None:
    """The only tags that C2T is to find, if not all."""
    if not settings.recall.c2t or settings.recall.c2t_trained:
        return None
    known = frozenset[str]().union(*(part.knows for part in parts.values()))
    return Unseen(known, memory.tags) if known else None


def _hierarchy(settings: Settings, graph: GraphRecall) -> Sequence[Stage]:
    match settings.tagger.broader:
        case "keep":
            return ()
        case "drop":
            return (WithoutBroader(),)
        case "add":
            return (WithBroader(graph),)
