"""Opening the stores of a worker from its settings."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tagbus.stream.config import MemorySettings
from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.memory import ExactStore, Point, open_memory
from tagbus.stream.memory.qdrant.embedded import EmbeddedStore

Make = Callable[..., Point]


@pytest.mark.parametrize("kind", ["exact", "hnsw", "embedded"])
async def test_tags_and_exemplars_are_apart(kind: str, point: Make) -> None:
    memory = await open_memory(MemorySettings.model_validate({"kind": kind}), "r1", 2)
    tags, exemplars = memory.tags, memory.exemplars
    assert (tags.release, tags.dimension) == (exemplars.release, exemplars.dimension) == ("r1", 2)
    assert await memory.empty()
    await tags.upsert([point("x", (1, 0))])
    assert [await tags.count(), await exemplars.count()] == [1, 0]
    assert not await memory.empty()
    await memory.close()


async def test_exact_is_the_default() -> None:
    memory = await open_memory(MemorySettings(), "r1", 2)
    assert isinstance(memory.tags, ExactStore)
    assert isinstance(memory.exemplars, ExactStore)
    await memory.close()


async def test_an_index_may_read_vectors_from_disk(tmp_path: Path, point: Make) -> None:
    """Only with the setting, and then from files in `memory.path`."""
    settings = MemorySettings(kind="hnsw", path=tmp_path / "made", vectors_on_disk=True)
    for chosen, there in ((settings.model_copy(update={"vectors_on_disk": False}), False), (settings, True)):
        memory = await open_memory(chosen, "r1", 2)
        await memory.tags.upsert([point("x", (1, 0))])
        assert set(await memory.tags.fetch(["x"])) == {"x"}
        assert (tmp_path / "made").exists() is there
        await memory.close()


@pytest.mark.parametrize("kind", ["hnsw", "embedded"])
@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nothing"])
async def test_a_path_where_no_folder_can_be_is_named(tmp_path: Path, kind: str, place: str) -> None:
    (tmp_path / "file").touch()
    given = {"kind": kind, "path": tmp_path / place, "vectors_on_disk": True}
    with pytest.raises(UserError, match=r"^TAGBUS_MEMORY__PATH: .* is not a writable folder: "):
        await open_memory(MemorySettings.model_validate(given), "r1", 2)


async def test_a_path_keeps_stored_points(tmp_path: Path, point: Make) -> None:
    settings = MemorySettings(kind="embedded", path=tmp_path)
    memory = await open_memory(settings, "r1", 2)
    await memory.exemplars.upsert([point("x", (1, 0))])
    await memory.close()
    again = await open_memory(settings, "r1", 2)
    assert [await again.tags.count(), await again.exemplars.count()] == [0, 1]
    await again.close()


async def test_when_the_second_store_fails_the_first_is_closed(tmp_path: Path) -> None:
    await (await EmbeddedStore.open(tmp_path / "r1" / "exemplars", "r0", 2)).close()
    with pytest.raises(ReleaseMismatch):
        await open_memory(MemorySettings(kind="embedded", path=tmp_path), "r1", 2)
    await (await EmbeddedStore.open(tmp_path / "r1" / "tags", "r1", 2)).close()


async def test_the_stores_of_two_releases_lie_side_by_side(tmp_path: Path, point: Make) -> None:
    settings = MemorySettings(kind="embedded", path=tmp_path)
    old, new = await open_memory(settings, "r1", 2), await open_memory(settings, "r2", 2)
    await old.tags.upsert([point("x", (1, 0))])
    assert [await old.tags.count(), await new.tags.count()] == [1, 0]
    await old.close()
    await new.close()
