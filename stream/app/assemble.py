"""From settings to the objects that tag: encoder, memory, recall, calibration, tagger."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice, starmap
from pathlib import Path

from tagbus.stream.app import second_encoders, trained
from tagbus.stream.app.trained import Learnt, open_learnt
from tagbus.stream.calibrate import Calibration
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.contract.release import Served
from tagbus.stream.encoder.base import Encoder
from tagbus.stream.encoder.open import open_encoder
from tagbus.stream.encoder.release import RELEASE, Release, default_folder, load_release
from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.index.apply import Listener, MemoryRecord, Projection
from tagbus.stream.index.changes import TagChanges
from tagbus.stream.memory import Carried, Memory, memory_of, open_memory
from tagbus.stream.memory.exact import ExactStore
from tagbus.stream.memory.hnsw import HnswStore
from tagbus.stream.memory.kinds import KINDS, Kind, carrying
from tagbus.stream.recall.base import Recaller
from tagbus.stream.recall.graph import GraphRecall
from tagbus.stream.recall.literal import LiteralRecall
from tagbus.stream.recall.second_encoder import SecondEncoder
from tagbus.stream.tagger import Pipeline, Tagger, Taxonomy
from tagbus.stream.tagger.union import Recall

log = logging.getLogger(__name__)

# Sorting by length pays more over more texts; 2,048 keep a progress bar moving.
CHUNK = 2048


@dataclass(frozen=True, slots=True)
class Brain:
    """All that tagging needs, but for what fills the memory."""

    settings: Settings
    encoder: Encoder
    memory: Memory
    learnt: Learnt
    literal: LiteralRecall | None = None
    second_encoder: SecondEncoder | None = None

    @property
    def pipeline(self) -> Pipeline:
        """What gives the scores, which a calibration is fitted to."""
        return self.learnt.pipeline

    @property
    def release(self) -> Release:
        """The release that the encoder runs."""
        return self.encoder.release

    def projection(self) -> Projection:
        """What turns records of the memory topics into points."""
        if self.second_encoder is None or self.memory.beside is None:
            beside = None
        else:
            beside = Projection(self.second_encoder.encoder, self.memory.beside)
        return Projection(self.encoder, self.memory, beside, self._listeners())

    def changes(self) -> TagChanges | None:
        """What is to be told of tags where another process writes the memory, None where nothing is."""
        return TagChanges(self.release, self._listeners()) if self._listeners() else None

    def _listeners(self) -> list[Listener]:
        return [] if self.literal is None else [self.literal.change]

    def others(self) -> list[Recaller]:
        """The recallers beside the graph, in the order of the path."""
        named = [] if self.literal is None else [self.literal]
        more = [] if self.second_encoder is None else self.second_encoder.recallers()
        return [*named, *self.learnt.others(), *more]

    def tagger(self, calibration: Calibration | None = None, taxonomy: Taxonomy = dict) -> Tagger:
        """The pipeline over this memory; the calibration of the settings unless one is given.

        Raises ReleaseMismatch for a calibration that is fitted to another pipeline.
        """
        settings, tags = self.settings, self.memory.tags
        graph = GraphRecall(
            tags, self.memory.exemplars, self.release.recall, settings.recall, settings.tagger.neighbours
        )
        recall = Recall(graph, self.others(), self.learnt.ranker)
        chosen = calibration or calibration_of(settings, self.release)
        return Tagger(self.encoder, recall, chosen, settings.tagger, taxonomy, self.pipeline)


def model_folder(settings: Settings) -> Path:
    """Where model, tokenizer and release lie."""
    return settings.encoder.folder or default_folder()


def calibration_of(settings: Settings, release: Release) -> Calibration:
    """The calibration of what the settings switch on over this release: see `trained.calibration_of`."""
    return trained.calibration_of(settings, release.name)


def release_folder(settings: Settings, name: str) -> Path:
    """Where the release of that name lies: releases.folder/NAME, or encoder.folder. Raises ReleaseMismatch."""
    place = settings.releases.folder
    if place is not None and (place / name / RELEASE).exists():
        return place / name
    if load_release(model_folder(settings)).name == name:
        return model_folder(settings)
    expected = "TAGBUS_RELEASES__FOLDER to hold it" if place is None else f"{place / name}"
    raise ReleaseMismatch(f"release {name} has no folder here, expected {expected}")


def snapshot_folder(settings: Settings, name: str) -> Path | None:
    """Where the builder leaves the memory of a release, None where releases have no folder."""
    return None if settings.releases.folder is None else settings.releases.folder / name / "memory"


def settings_of(settings: Settings, folder: Path, served: Served | None) -> Settings:
    """The settings of one release among several: its folder, and where Triton has it; heads have the same version.

    A calibration, heads, label trees, a second encoder, a ranker and a cross-encoder that the settings name belong to
    the
    release of encoder.folder alone; another brings its own in `heads`, `labeltree`, `second_encoder`, `rank` and
    `cross_encoder` of
    its folder.
    """
    if folder == model_folder(settings):
        return settings
    own: dict[str, object] = {"folder": folder}
    heads: dict[str, object] = {"folder": _within(folder, "heads")}
    if served is not None:
        own |= {"model": served.model, "version": served.version}
        heads |= {"version": served.version}
    return settings.model_copy(
        update={
            "encoder": settings.encoder.model_copy(update=own),
            "tagger": settings.tagger.model_copy(update={"calibration": None}),
            "heads": settings.heads.model_copy(update=heads),
            "labeltree": settings.labeltree.model_copy(update={"folder": _within(folder, "labeltree")}),
            "second_encoder": settings.second_encoder.model_copy(update={"folder": _within(folder, "second_encoder")}),
            "rank": settings.rank.model_copy(update={"folder": _within(folder, "rank")}),
            "cross_encoder": settings.cross_encoder.model_copy(update={"folder": _within(folder, "cross_encoder")}),
        }
    )


def _within(folder: Path, name: str) -> Path | None:
    return folder / name if (folder / name).is_dir() else None


def exact(settings: Settings) -> Settings:
    """The same with a memory of this process's own."""
    return settings.model_copy(update={"memory": settings.memory.model_copy(update={"kind": "exact"})})


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Brain]:
    """The release of encoder.folder with the stores that the settings name. Raises as `open_encoder` does."""
    release = await asyncio.to_thread(load_release, model_folder(settings))
    memory = await open_memory(settings.memory, release.name, release.dimension)
    try:
        if (own := second_encoders.alone(settings)) is not None:
            other = await asyncio.to_thread(load_release, model_folder(own))
            beside = await open_memory(settings.memory, other.name, other.dimension, carrying())
            memory = replace(memory, beside=beside)
    except BaseException:
        await memory.close()
        raise
    async with brain(settings, memory) as made:
        yield made


@asynccontextmanager
async def brain(settings: Settings, memory: Memory) -> AsyncIterator[Brain]:
    """Encoder and memory, closed at the end. Raises as `open_encoder` does."""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(memory.close)
        encoder = await open_encoder(settings.encoder, model_folder(settings))
        stack.push_async_callback(encoder.close)
        second_encoder = await second_encoders.open_second_encoder(settings, memory.beside)
        if second_encoder is not None:
            stack.push_async_callback(second_encoder.close)
        trained = await open_learnt(settings, encoder.release.name)
        stack.push_async_callback(trained.close)
        yield Brain(settings, encoder, memory, trained, literal_of(settings, memory), second_encoder)


def literal_of(settings: Settings, memory: Memory) -> LiteralRecall | None:
    """Literal recall over these tags, None where it is off. Raises UserError for a language that is none."""
    return LiteralRecall(memory.tags, settings.recall.languages.split(",")) if settings.recall.literal else None


async def cached_memory(folder: Path | None, settings: Settings) -> Memory:
    """A memory of this process's own, with the embeddings of an earlier run over the same release where `folder` holds
    them. Searched exactly, unless memory.kind is hnsw."""
    own = second_encoders.alone(settings)
    beside = None if own is None else await _cached(folder, own, carrying())
    return replace(await _cached(folder, settings, KINDS), beside=beside)


async def _cached(folder: Path | None, settings: Settings, kinds: Mapping[str, Kind]) -> Memory:
    release = load_release(model_folder(settings))
    made = HnswStore if settings.memory.kind == "hnsw" else ExactStore

    async def store(kind: str, carried: Carried) -> ExactStore:
        place = None if folder is None else folder / release.name / kind
        if place is None or not place.exists():
            return made(release.name, release.dimension, carried)
        return await made.load(place, release.name, release.dimension, carried)

    return await memory_of(store, kinds)


async def save_memory(folder: Path, memory: Memory) -> None:
    """Keep the embeddings for the next run. Raises UserError where they cannot be written."""
    for kind, store in memory.stores.items():
        if isinstance(store, ExactStore):
            try:
                await store.save(folder / store.release / kind)
            except OSError as error:
                raise UserError(f"{folder} cannot keep the embeddings: {error.strerror}") from None
    if memory.beside is not None:
        await save_memory(folder, memory.beside)


async def fill(
    projection: Projection, events: Mapping[str, Iterable[Tag | Exemplar]], advance: Callable[[int], None]
) -> None:
    """Memory becomes exactly these events, by the names of their kinds; what it holds of them already is not encoded
    again."""
    kept = projection.empty()
    for records in chain.from_iterable(starmap(_chunks, events.items())):
        for name, keys in (await projection.apply(records)).items():
            kept[name].update(keys)
        advance(len(records))
    await projection.sweep(kept)
    settle()


def settle() -> None:
    """Take what stands in memory now out of the garbage collector's rounds.

    A payload is a few objects, and each round looks at all of them: with 8,578 exemplars in memory the loop thread
    spent 0.65 ms a content in recall, and 0.55 ms without the rounds and with fewer objects made.
    """
    gc.collect()
    gc.freeze()
    # A content makes some 400 short-lived objects: at the default of 700 every other one began a round.
    gc.set_threshold(50_000, 20, 20)


def free_dropped() -> None:
    """Free what was settled and nobody refers to any longer, where it refers to itself.

    No round looks at what is settled, so it is looked at whole here, which stops the process: 0.08 s with 8,578
    exemplars in memory, 1.7 s with 328,152. Therefore only where a release was dropped.
    """
    gc.unfreeze()
    settle()


def _chunks(kind: str, events: Iterable[Tag | Exemplar]) -> Iterator[list[MemoryRecord]]:
    records = (
        MemoryRecord(kind, encode_record(event), f"{kind}:{number}") for number, event in enumerate(events, start=1)
    )
    while chunk := list(islice(records, CHUNK)):
        yield chunk
