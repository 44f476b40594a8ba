"""The engine in the process: a folder that outlives it, one opener, one release."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.memory import Point, Vectors, embedded
from tagbus.stream.memory.embedded import EmbeddedStore
from tests.memory.listing import listed

Make = Callable[..., Point]
Unit = Callable[..., Vectors]


async def test_points_are_there_after_a_reopening(tmp_path: Path, point: Make, unit: Unit) -> None:
    store = await EmbeddedStore.open(tmp_path / "a" / "tags", "r1", 2)
    await store.upsert([point("x", (1, 0), n=1), point("y", (0, 1), n=2)])
    await store.delete(["y"])
    await store.close()
    await store.close()
    again = await EmbeddedStore.open(tmp_path / "a" / "tags", "r1", 2)
    assert await again.fetch(["x", "y"]) == {"x": {"n": 1}}
    assert [hit.key for hit in (await listed(again, unit([(1, 0)]), 5))[0]] == ["x"]
    await again.close()


async def test_points_are_there_after_a_kill(tmp_path: Path, point: Make) -> None:
    """The process ends without a close, as after SIGKILL: what upsert acknowledged is in the write-ahead log."""
    import asyncio

    code = f"""
import asyncio, os, numpy as np
from pathlib import Path
from tagbus.stream.memory import Point
from tagbus.stream.memory.embedded import EmbeddedStore
from tests.memory.listing import listed
async def main():
    store = await EmbeddedStore.open(Path({str(tmp_path)!r}), "r1", 2)
    await store.upsert([Point(f"k{{n}}", np.array([1, 0], np.float32), {{}}) for n in range(100)])
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await process.wait() == -9
    store = await EmbeddedStore.open(tmp_path, "r1", 2)
    assert await store.count() == 100
    await store.close()


async def test_a_second_opener_is_told_so(tmp_path: Path, point: Make) -> None:
    store = await EmbeddedStore.open(tmp_path, "r1", 2)
    with pytest.raises(UserError, match=f"{tmp_path} is open already"):
        await EmbeddedStore.open(tmp_path, "r1", 2)
    await store.upsert([point("x", (1, 0))])
    await store.close()
    again = await EmbeddedStore.open(tmp_path, "r1", 2)
    assert await again.count() == 1
    await again.close()


async def test_a_store_of_another_release_is_refused(tmp_path: Path) -> None:
    await (await EmbeddedStore.open(tmp_path, "r1", 2)).close()
    with pytest.raises(ReleaseMismatch, match=r"'r1'.*'r2'; delete it and let it be rebuilt"):
        await EmbeddedStore.open(tmp_path, "r2", 2)
    with pytest.raises(ReleaseMismatch, match=r"2 dimensions.*makes 3"):
        await EmbeddedStore.open(tmp_path, "r1", 3)
    await (await EmbeddedStore.open(tmp_path, "r1", 2)).close()


async def test_a_creation_that_was_cut_short_is_done_again(tmp_path: Path) -> None:
    await (await EmbeddedStore.open(tmp_path, "r1", 2)).close()
    (tmp_path / "shard").rename(tmp_path / "shard.new")
    store = await EmbeddedStore.open(tmp_path, "r1", 2)
    assert await store.count() == 0
    await store.close()


async def test_a_folder_that_is_none_of_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years")
    with pytest.raises(UserError, match="holds no store of tagbus"):
        await EmbeddedStore.open(tmp_path, "r1", 2)
    with pytest.raises(UserError, match="is no folder to write to"):
        await EmbeddedStore.open(tmp_path / "thesis.txt" / "tags", "r1", 2)
    assert (tmp_path / "thesis.txt").read_text() == "ten years"


async def test_a_broken_shard_is_a_users_error(tmp_path: Path) -> None:
    await (await EmbeddedStore.open(tmp_path, "r1", 2)).close()
    (tmp_path / "shard" / "edge_config.json").write_text("{")
    with pytest.raises(UserError, match=f"the store in {tmp_path} cannot be opened"):
        await EmbeddedStore.open(tmp_path, "r1", 2)


async def test_a_temporary_store_leaves_nothing(tmp_path: Path, point: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = await EmbeddedStore.temporary("r1", 2)
    await store.upsert([point("x", (1, 0))])
    assert list(tmp_path.iterdir()) != []
    await store.close()
    assert list(tmp_path.iterdir()) == []


async def test_it_flushes_as_it_goes(tmp_path: Path, point: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "FLUSH_POINTS", 10)
    monkeypatch.setattr(embedded, "CHUNK", 4)
    monkeypatch.setattr(embedded, "SCROLL", 7)
    store = await EmbeddedStore.open(tmp_path, "r1", 2)
    await store.upsert([point(f"k{n}", (1, n)) for n in range(33)])
    assert await store.keys() == {f"k{n}" for n in range(33)}
    await store.close()


async def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qdrant_edge", None)
    with pytest.raises(UserError, match=r"pip install 'tagbus\[embedded\]'"):
        await EmbeddedStore.open(tmp_path, "r1", 2)
