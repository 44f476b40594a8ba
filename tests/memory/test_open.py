"""From settings to the two stores of a worker."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tagbus.stream.config import MemorySettings
from tagbus.stream.errors import ReleaseMismatch
from tagbus.stream.memory import ExactStore, Point, open_stores
from tagbus.stream.memory.embedded import EmbeddedStore

Make = Callable[..., Point]


@pytest.mark.parametrize("kind", ["exact", "hnsw", "embedded"])
async def test_tags_and_exemplars_are_apart(kind: str, point: Make) -> None:
    tags, exemplars = await open_stores(MemorySettings.model_validate({"kind": kind}), "r1", 2)
    assert (tags.release, tags.dimension) == (exemplars.release, exemplars.dimension) == ("r1", 2)
    await tags.upsert([point("x", (1, 0))])
    assert [await tags.count(), await exemplars.count()] == [1, 0]
    await tags.close()
    await exemplars.close()


async def test_exact_is_the_default() -> None:
    tags, exemplars = await open_stores(MemorySettings(), "r1", 2)
    assert isinstance(tags, ExactStore)
    assert isinstance(exemplars, ExactStore)
    await tags.close()
    await exemplars.close()


async def test_a_path_keeps_what_was_stored(tmp_path: Path, point: Make) -> None:
    settings = MemorySettings(kind="embedded", path=tmp_path)
    tags, exemplars = await open_stores(settings, "r1", 2)
    await exemplars.upsert([point("x", (1, 0))])
    await tags.close()
    await exemplars.close()
    tags, exemplars = await open_stores(settings, "r1", 2)
    assert [await tags.count(), await exemplars.count()] == [0, 1]
    await tags.close()
    await exemplars.close()


async def test_when_the_second_store_fails_the_first_is_let_go(tmp_path: Path) -> None:
    await (await EmbeddedStore.open(tmp_path / "r1" / "exemplars", "r0", 2)).close()
    with pytest.raises(ReleaseMismatch):
        await open_stores(MemorySettings(kind="embedded", path=tmp_path), "r1", 2)
    await (await EmbeddedStore.open(tmp_path / "r1" / "tags", "r1", 2)).close()


async def test_the_stores_of_two_releases_lie_side_by_side(tmp_path: Path, point: Make) -> None:
    settings = MemorySettings(kind="embedded", path=tmp_path)
    old, new = await open_stores(settings, "r1", 2), await open_stores(settings, "r2", 2)
    await old[0].upsert([point("x", (1, 0))])
    assert [await old[0].count(), await new[0].count()] == [1, 0]
    for store in (*old, *new):
        await store.close()
