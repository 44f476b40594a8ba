"""From settings to the objects that tag: encoder, memory, recall, calibration, tagger."""

import gc
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from tagbus.stream import calibrate
from tagbus.stream.calibrate import Calibration
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.encoder.base import Encoder
from tagbus.stream.encoder.open import open_encoder
from tagbus.stream.encoder.release import Release, default_folder, load_release
from tagbus.stream.errors import UserError
from tagbus.stream.index.apply import Kind, Memory, MemoryRecord, Projection
from tagbus.stream.memory.exact import ExactStore
from tagbus.stream.recall.graph import GraphRecall
from tagbus.stream.tagger import Tagger

log = logging.getLogger(__name__)

# Sorting by length pays more over more texts; 2,048 keep a progress bar moving.
CHUNK = 2048


@dataclass(frozen=True, slots=True)
class Brain:
    """All that tagging needs, but for what fills the memory."""

    settings: Settings
    encoder: Encoder
    memory: Memory

    @property
    def release(self) -> Release:
        """The release that the encoder runs."""
        return self.encoder.release

    def projection(self) -> Projection:
        """What turns records of the memory topics into points."""
        return Projection(self.encoder, self.memory)

    def tagger(
        self, calibration: Calibration | None = None, taxonomy: Callable[[], Mapping[str, int]] = dict
    ) -> Tagger:
        """The pipeline over this memory; the calibration of the settings unless one is given."""
        settings = self.settings
        recall = GraphRecall(
            self.memory.tags, self.memory.exemplars, self.release.recall, settings.recall, settings.tagger.neighbours
        )
        chosen = calibration or calibration_of(settings, self.release)
        return Tagger(self.encoder, recall, chosen, settings.tagger, taxonomy)


def model_folder(settings: Settings) -> Path:
    """Where model, tokenizer and release lie."""
    return settings.encoder.folder or default_folder()


def calibration_of(settings: Settings, release: Release) -> Calibration:
    """The calibration that the settings name, or the one beside the model, or none."""
    path = settings.tagger.calibration
    if path is not None:
        return calibrate.load(path, release.name)
    beside = model_folder(settings) / "calibration.json"
    return calibrate.load(beside, release.name) if beside.exists() else calibrate.uncalibrated(release.name)


@asynccontextmanager
async def brain(settings: Settings, memory: Memory) -> AsyncIterator[Brain]:
    """Encoder and memory, closed at the end. Raises as `open_encoder` does."""
    encoder = await open_encoder(settings.encoder, model_folder(settings))
    try:
        yield Brain(settings, encoder, memory)
    finally:
        await encoder.close()
        await memory.close()


async def cached_memory(folder: Path | None, settings: Settings) -> Memory:
    """An exact memory, with the embeddings of an earlier run over the same release where `folder` holds them."""
    release = load_release(model_folder(settings))

    async def store(kind: Kind) -> ExactStore:
        place = None if folder is None else folder / release.name / kind
        if place is None or not place.exists():
            return ExactStore(release.name, release.dimension)
        return await ExactStore.load(place, release.name, release.dimension)

    return Memory(await store("tags"), await store("exemplars"))


async def save_memory(folder: Path, memory: Memory) -> None:
    """Keep the embeddings for the next run. Raises UserError where they cannot be written."""
    for kind, store in (("tags", memory.tags), ("exemplars", memory.exemplars)):
        if isinstance(store, ExactStore):
            try:
                await store.save(folder / store.release / kind)
            except OSError as error:
                raise UserError(f"{folder} cannot keep the embeddings: {error.strerror}") from None


async def fill(
    projection: Projection, tags: Iterable[Tag], exemplars: Iterable[Exemplar], advance: Callable[[int], None]
) -> None:
    """Memory becomes exactly these tags and exemplars; what it holds of them already is not encoded again."""
    kept: dict[Kind, set[str]] = {"tags": set(), "exemplars": set()}
    for records in chain(_chunks("tags", tags), _chunks("exemplars", exemplars)):
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


def _chunks(kind: Kind, events: Iterable[Tag | Exemplar]) -> Iterator[list[MemoryRecord]]:
    records = (
        MemoryRecord(kind, encode_record(event), f"{kind}:{number}") for number, event in enumerate(events, start=1)
    )
    while chunk := list(islice(records, CHUNK)):
        yield chunk
