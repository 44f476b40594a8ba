"""The engine in the process: a folder that outlives it, one opener, one release."""

import asyncio
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.memory import Point, Vectors
from tagbus.stream.memory.qdrant import embedded
from tagbus.stream.memory.qdrant.embedded import EmbeddedStore
from tagbus.stream.memory.qdrant.engine import point_id
from tests.memory.listing import listed

Make = Callable[..., Point]
Unit = Callable[..., Vectors]


async def test_points_survive_a_reopening(tmp_path: Path, point: Make, unit: Unit) -> None:
    store = await EmbeddedStore.open(tmp_path / "a" / "tags", "r1", 2)
    await store.upsert([point("x", (1, 0), n=1), point("y", (0, 1), n=2)])
    await store.delete(["y"])
    await store.close()
    await store.close()
    again = await EmbeddedStore.open(tmp_path / "a" / "tags", "r1", 2)
    assert await again.fetch(["x", "y"]) == {"x": {"n": 1}}
    assert [hit.key for hit in (await listed(again, unit([(1, 0)]), 5))[0]] == ["x"]
    await again.close()


async def test_points_survive_a_kill(tmp_path: Path, point: Make) -> None:
    """The process ends without a close, as after SIGKILL: acknowledged upserts are in the write-ahead log."""
    code = f"""
import asyncio, os, numpy as np
from pathlib import Path
from tagbus.stream.memory import Point
from tagbus.stream.memory.qdrant.embedded import EmbeddedStore
from tagbus.stream.memory.qdrant.engine import point_id
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


async def test_a_second_opener_is_refused(tmp_path: Path, point: Make) -> None:
    store = await EmbeddedStore.open(tmp_path, "r1", 2)
    with pytest.raises(UserError, match=f"{tmp_path} is open already"):
        await EmbeddedStore.open(tmp_path, "r1", 2)
    await store.upsert([point("x", (1, 0))])
    await store.close()
    again = await EmbeddedStore.open(tmp_path, "r1", 2)
    assert await again.count() == 1
    await again.close()


async def test_another_process_is_refused(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path, "r1", 2)
    ended = await in_a_process(f"""
    try:
        await EmbeddedStore.open(Path({str(tmp_path)!r}), "r1", 2)
    except TagbusError as error:
        os._exit(error.exit_code)
""")
    assert ended == UserError.exit_code
    await store.close()


async def test_a_folder_that_cannot_be_written_is_a_users_error() -> None:
    with pytest.raises(UserError, match=r"/proc/tagbus/tags is not a writable folder"):
        await EmbeddedStore.open(Path("/proc/tagbus/tags"), "r1", 2)


async def test_a_full_disk_is_waited_for_and_confirmed_points_are_kept(tmp_path: Path) -> None:
    """After a while no file may grow beyond 60 kB; unconfirmed points are applied again."""
    ended = await in_a_process(f"""
    store = await EmbeddedStore.open(Path({str(tmp_path)!r}), "r1", 2)
    await store.upsert([Point(f"k{{n}}", np.array([1, 0], np.float32), {{"n": n}}) for n in range(100)])
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limit[1]))
    more = [Point(f"m{{n}}", np.array([1, 0], np.float32), {{"text": "x" * 500}}) for n in range(500)]
    try:
        await store.upsert(more)
    except DependencyDown:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        await store.upsert(more)
        os._exit(42 if len(await store.fetch([one.key for one in more])) == 500 else 1)
""")
    assert ended == 42
    store = await EmbeddedStore.open(tmp_path, "r1", 2)
    assert await store.fetch([f"k{n}" for n in range(100)]) == {f"k{n}": {"n": n} for n in range(100)}
    assert await store.count() == 600
    await store.close()


async def test_a_folder_that_becomes_read_only_is_waited_for_and_read_meanwhile() -> None:
    """The process runs as the user nobody, since root may write anywhere."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        ended = await in_a_process(f"""
    import qdrant_edge
    if os.getuid() == 0:
        os.setuid(65534)
    folder = Path({name!r}) / "store"
    store = await EmbeddedStore.open(folder, "r1", 2)
    await store.upsert([Point("before", np.array([1, 0], np.float32), {{"n": 1}})])
    more = [Point(f"m{{n}}", np.array([1, 0], np.float32), {{"n": n}}) for n in range(50)]
    folder.chmod(0o500)
    try:
        await store.upsert(more)
    except DependencyDown as error:
        said = "readonly" in str(error) or "unable to open" in str(error)
        meanwhile = await store.fetch(["before", "m0"])
        folder.chmod(0o700)
        await store.upsert(more)
        whole = len(await store.fetch([one.key for one in more])) == 50
        os._exit(42 if said and meanwhile == {{"before": {{"n": 1}}}} and whole else 1)
""")
        assert ended == 42


async def in_a_process(body: str) -> int:
    """The exit code of a process that runs these lines."""
    code = f"""
import asyncio, os, resource, numpy as np
from pathlib import Path
from tagbus.stream.errors import DependencyDown, TagbusError
from tagbus.stream.memory import Point
from tagbus.stream.memory.qdrant.embedded import EmbeddedStore
async def main():
    {body.strip()}
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    return await process.wait()


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
    with pytest.raises(UserError, match="is not a writable folder"):
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


async def test_nothing_of_a_payload_stays_on_disk_after_its_point_is_deleted(tmp_path: Path, point: Make) -> None:
    """The engine alone leaves deleted bytes in its storage and in its log."""

    def files_with(word: bytes) -> list[str]:
        return [path.name for path in tmp_path.rglob("*") if path.is_file() and word in path.read_bytes()]

    store = await EmbeddedStore.open(tmp_path, "r1", 2)
    await store.upsert([point(f"k{n}", (1, n), text="filler") for n in range(50)])
    await store.upsert([point("a", (1, 0), text="marmalade"), point("b", (0, 1), text="harbour")])
    assert files_with(b"marmalade") == ["payloads.sqlite"]
    await store.set_payloads({"b": {"text": "lighthouse"}})
    await store.delete(["a"])
    await store.close()
    assert files_with(b"marmalade") == files_with(b"harbour") == []
    again = await EmbeddedStore.open(tmp_path, "r1", 2)
    assert await again.fetch(["a", "b"]) == {"b": {"text": "lighthouse"}}
    await again.close()


async def test_a_payload_without_the_point_that_it_was_stored_with_does_not_count(tmp_path: Path, point: Make) -> None:
    """Given a machine that went down between the two writes, a partial point does not exist, so it is encoded again."""
    store = await EmbeddedStore.open(tmp_path / "now", "r1", 2)
    await store.upsert([point("same", (1, 0), n=1), point("changed", (1, 0), n=1), point("gone", (1, 1), n=1)])
    await store.close()
    shutil.copytree(tmp_path / "now", tmp_path / "before")
    store = await EmbeddedStore.open(tmp_path / "now", "r1", 2)
    await store.upsert([point("changed", (0, 1), n=2), point("new", (0, 1), n=2)])
    await store.delete(["gone"])
    await store.close()
    for one, other in (("now", "before"), ("before", "now")):
        mixed = tmp_path / f"engine of {one}"
        shutil.copytree(tmp_path / one, mixed)
        shutil.copy(tmp_path / other / "payloads.sqlite", mixed)
        store = await EmbeddedStore.open(mixed, "r1", 2)
        assert await store.fetch(["same", "changed", "gone", "new"]) == {"same": {"n": 1}}
        await store.close()


async def test_points_from_before_payloads_had_a_file_are_read(tmp_path: Path, point: Make, unit: Unit) -> None:
    import qdrant_edge

    store = await EmbeddedStore.open(tmp_path, "r1", 2)
    old = qdrant_edge.Point(point_id("old"), [1.0, 0.0], {"key": "old", "payload": {"text_hash": "h"}})
    store._shard.update(qdrant_edge.UpdateOperation.upsert_points([old]))
    assert await store.fetch(["old"]) == {"old": {"text_hash": "h"}}
    await store.set_payloads({"old": {"text_hash": "h", "scopes": ["ann"]}})
    assert await store.fetch(["old"]) == {"old": {"text_hash": "h", "scopes": ["ann"]}}
    assert [hit.key for hit in (await listed(store, unit([(1, 0)]), 5, [frozenset({"ann"})]))[0]] == ["old"]
    await store.close()
