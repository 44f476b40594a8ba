"""A withdrawn content leaves no word of its text: not in memory, its copies, or a rebuilt memory."""

import gc
import os
from collections.abc import Awaitable, Callable
from io import FileIO
from pathlib import Path

import numpy as np
import pytest

from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.index import snapshot
from tagbus.stream.index.apply import MemoryRecord, Projection
from tagbus.stream.memory import Carried, ExactStore, Memory, Store, exact_memory, memory_of
from tagbus.stream.memory.hnsw import HnswStore
from tagbus.stream.memory.qdrant.embedded import EmbeddedStore
from tests.index.parts import ORIGIN, encoder, origin, record, tombstone

Open = Callable[[Path], Awaitable[Memory]]

# A word that is nowhere else, and in two pieces here, so that this file does not hold it either.
MARK = "quince" + "blossom"
PLACES = {("tags", 0): 7, ("exemplars", 0): 3}
SETTINGS = Settings.model_construct()
OTHERS = [Exemplar(id=f"x{n}", title=f"Other {n}", accepted=("t",)) for n in range(5)]
WITHDRAWN = [
    Exemplar(id="gone", source="people", title=f"On {MARK}", text=f"All of {MARK}", accepted=("t",)),
    Exemplar(id="gone", source="machine", title=f"On {MARK}", text=f"All of {MARK}", accepted=("t",)),
]
TOMBSTONES = [tombstone("exemplars", one.key) for one in WITHDRAWN]


async def exact(_: Path) -> Memory:
    return exact_memory(encoder().release.name, encoder().release.dimension, ExactStore)


async def hnsw(_: Path) -> Memory:
    return exact_memory(encoder().release.name, encoder().release.dimension, HnswStore)


async def on_disk(folder: Path) -> Memory:
    of = encoder().release

    async def store(_: str, carried: Carried) -> Store:
        return HnswStore(of.name, of.dimension, carried, folder / "files")

    return await memory_of(store)


async def embedded(folder: Path) -> Memory:
    pytest.importorskip("qdrant_edge")
    of = encoder().release
    return await memory_of(lambda kind, carried: EmbeddedStore.open(folder / kind, of.name, of.dimension, carried))


async def apply(memory: Memory, *records: MemoryRecord) -> None:
    await Projection(encoder(), memory).apply(records)


async def filled(memory: Memory) -> Memory:
    """With the content that is withdrawn later, which was found and read."""
    await apply(memory, record(Tag(id="t", name="fruit")), *map(record, OTHERS[:3]))
    await apply(memory, *map(record, WITHDRAWN), *map(record, OTHERS[3:]))
    found = await memory.exemplars.search(await encoder().encode([f"On {MARK}"]), 2)
    assert MARK in str(await memory.exemplars.fetch(found[0].keys.tolist()))
    return memory


def files_with_it(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and MARK.encode() in path.read_bytes()]


def content(file: FileIO) -> bytes:
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)


def objects_with_it(memory: Memory) -> list[object]:
    """What is reachable from the stores and holds the text: payloads, caches, arrays of Python's objects, open files
    (those of payloads on disk have no names)."""
    found, seen, left = [], set[int](), [list(memory.stores.values())]
    while left:
        one: object = left.pop()
        if id(one) in seen or isinstance(one, type) or type(one).__name__ in ("module", "function"):
            continue
        seen.add(id(one))
        if (isinstance(one, str) and MARK in one) or (isinstance(one, bytes) and MARK.encode() in one):
            found.append(one)
        if isinstance(one, FileIO) and one.readable() and MARK.encode() in content(one):
            found.append(one)
        left += gc.get_referents(one)
        if isinstance(one, np.ndarray) and one.dtype == object:
            left += one.ravel().tolist()
    return found


@pytest.mark.parametrize("open_", [exact, hnsw, on_disk])
async def test_nothing_that_a_store_holds_has_the_text(tmp_path: Path, open_: Open) -> None:
    memory = await filled(await open_(tmp_path))
    assert objects_with_it(memory)

    await apply(memory, *TOMBSTONES)

    assert await memory.exemplars.keys() == {one.key for one in OTHERS}
    assert objects_with_it(memory) == []


@pytest.mark.parametrize("open_", [exact, hnsw, on_disk])
async def test_nor_has_a_copy_that_is_made_after_it(tmp_path: Path, open_: Open) -> None:
    memory = await filled(await open_(tmp_path))
    await snapshot.save(tmp_path / "before", memory, PLACES, ORIGIN)
    assert files_with_it(tmp_path / "before") == ["points.jsonl"]
    await apply(memory, *TOMBSTONES)

    await snapshot.save(tmp_path / "after", memory, PLACES, ORIGIN)

    assert files_with_it(tmp_path / "after") == []


@pytest.mark.parametrize("open_", [exact, hnsw, on_disk, embedded])
async def test_a_memory_that_takes_over_an_older_copy_loses_it_with_the_record(tmp_path: Path, open_: Open) -> None:
    """Given a copy of before, when the offsets after it bring the withdrawal, then the text is nowhere but there."""
    await snapshot.save(tmp_path / "before", await filled(await exact(tmp_path)), PLACES, ORIGIN)
    memory = await open_(tmp_path / "stores")
    assert await snapshot.load(tmp_path / "before", [memory], SETTINGS, origin) == PLACES

    await apply(memory, *TOMBSTONES)

    assert await memory.exemplars.keys() == {one.key for one in OTHERS}
    await memory.close()
    assert files_with_it(tmp_path / "stores") == []


async def test_the_older_copies_themselves_go_with_the_next_two(tmp_path: Path) -> None:
    memory = await filled(await exact(tmp_path))
    await snapshot.save(tmp_path, memory, PLACES, ORIGIN)
    await apply(memory, *TOMBSTONES)
    await snapshot.save(tmp_path, memory, PLACES, ORIGIN)
    assert files_with_it(tmp_path) == ["points.jsonl"]
    await snapshot.save(tmp_path, memory, PLACES, ORIGIN)
    assert files_with_it(tmp_path) == []


@pytest.mark.parametrize("open_", [exact, hnsw, on_disk, embedded])
async def test_nor_has_a_memory_that_is_built_anew_from_a_topic_that_still_has_the_record(
    tmp_path: Path, open_: Open
) -> None:
    """Given a topic that is not compacted yet, when it is read from its beginning, in one chunk or piece by piece."""
    for name, first, second in (("apart", WITHDRAWN, []), ("together", [], WITHDRAWN)):
        folder = tmp_path / name
        memory = await open_(folder)
        await apply(memory, *map(record, OTHERS), *map(record, first))
        await apply(memory, *map(record, second), *TOMBSTONES)
        assert await memory.exemplars.keys() == {one.key for one in OTHERS}
        assert objects_with_it(memory) == []
        await memory.close()
        assert files_with_it(folder) == []
