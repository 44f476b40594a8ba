"""Fill memory from files instead of topics, and keep it in a folder for the next run."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, starmap
from pathlib import Path
from typing import Final

from tagbus.stream.app.releases.collection import settle
from tagbus.stream.config import MemorySettings, Settings
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Exemplar, Knowledge, Tag
from tagbus.stream.encoder.release import Release
from tagbus.stream.errors import UserError
from tagbus.stream.index.apply import MemoryRecord, Projection
from tagbus.stream.memory import Carried, Memory, Store, memory_of
from tagbus.stream.memory.exact import ExactStore
from tagbus.stream.memory.hnsw import HnswStore
from tagbus.stream.memory.kinds import KINDS, Kind
from tagbus.stream.memory.open import files_folder, index_options

# Sorting by length saves more padding in larger chunks; at 2,048 a progress bar still moves.
CHUNK: Final = 2048


async def cached_memory(
    folder: Path | None, settings: Settings, release: Release, kinds: Mapping[str, Kind] = KINDS
) -> Memory:
    """An in-process memory for vectors of `release`, with the embeddings cached in `folder` by an earlier run. Search
    is exact unless memory.kind is hnsw."""

    async def store(kind: str, carried: Carried) -> ExactStore:
        found = _empty(settings.memory, release, carried)
        place = None if folder is None else folder / release.name / kind
        if place is not None and place.exists():
            await found.take(place)
        return found

    return await memory_of(store, kinds)


def _empty(settings: MemorySettings, release: Release, carried: Carried) -> ExactStore:
    if settings.kind != "hnsw":
        return ExactStore(release.name, release.dimension, carried)
    files = files_folder(settings)
    return HnswStore(release.name, release.dimension, carried, files, index_options(settings))


async def save_memories(folder: Path, memories: Sequence[Memory]) -> None:
    """Save the embeddings for the next run. Raises UserError if they cannot be written."""
    for store in chain.from_iterable(memory.stores.items() for memory in memories):
        await _save(folder, *store)


async def _save(folder: Path, kind: str, store: Store) -> None:
    if isinstance(store, ExactStore):
        try:
            await store.save(folder / store.release / kind)
        except OSError as error:
            raise UserError(f"{folder} cannot store the embeddings: {error.strerror}") from None


async def fill(
    projection: Projection, events: Mapping[str, Iterable[Tag | Exemplar | Knowledge]], advance: Callable[[int], None]
) -> None:
    """Make memory hold exactly these events, given by kind. Unchanged events are not encoded again."""
    kept = projection.empty()
    for records in chain.from_iterable(starmap(_chunks, events.items())):
        for name, keys in (await projection.apply(records)).items():
            kept[name].update(keys)
        advance(len(records))
    await projection.sweep(kept)
    settle()


def _chunks(kind: str, events: Iterable[Tag | Exemplar | Knowledge]) -> Iterator[list[MemoryRecord]]:
    records = (
        MemoryRecord(kind, encode_record(event), f"{kind}:{number}") for number, event in enumerate(events, start=1)
    )
    while chunk := list(islice(records, CHUNK)):
        yield chunk
