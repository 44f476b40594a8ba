"""The store with an index: nearly the exact store's hits, each with the exact store's similarity, after any history."""

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.memory import ExactStore, Point, Vectors, hnsw
from tagbus.stream.memory.hnsw import HnswStore, IndexOptions
from tagbus.stream.memory.rows import index
from tests.memory.clusters import D, both, clustered, of, points, recall
from tests.memory.listing import listed, taken

Unit = Callable[..., Vectors]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is used from 200 points on."""
    monkeypatch.setattr(hnsw, "FLOOR", 200)


async def test_it_finds_what_exact_search_finds(unit: Unit) -> None:
    store, exact = await both(points(clustered(unit, 5_000)))
    queries = clustered(unit, 100, seed=1)
    found, right = await listed(store, queries, 30), await listed(exact, queries, 30)
    assert all(len(hits) == 30 for hits in found)
    assert recall(found, right) > 0.98
    alone = [(await listed(store, query[None], 30))[0] for query in queries]
    assert alone == found


async def test_deleted_or_replaced_points_never_come_back(unit: Unit) -> None:
    """Two thirds of the points are deleted or replaced, including the first, while others are added."""
    store, exact = await both(points(clustered(unit, 3_000)))
    random = np.random.default_rng(3)
    for turn in range(20):
        fresh = clustered(unit, 100, seed=100 + turn)
        keys = sorted(await exact.keys())
        gone = [keys[0], *random.choice(keys[1:], 60, replace=False).tolist()]
        others = [key for key in keys if key not in set(gone)]
        again = [others[0], *random.choice(others[1:], 59, replace=False).tolist()]
        changed = [Point(key, vector, {"turn": turn}) for key, vector in zip(again, fresh, strict=False)]
        for each in (store, exact):
            await each.delete(gone)
            await each.upsert([*changed, *points(fresh[60:], first=10_000 + 100 * turn)])
    assert await store.keys() == await exact.keys()
    queries = clustered(unit, 100, seed=1)
    found, right = await listed(store, queries, 30), await listed(exact, queries, 30)
    assert recall(found, right) > 0.97
    payloads = await exact.fetch(sorted(await exact.keys()))
    assert all(payloads[hit.key] == hit.payload for hits in found for hit in hits)
    assert all(len({hit.key for hit in hits}) == 30 for hits in found)


async def test_a_store_that_was_emptied_is_filled_again(unit: Unit) -> None:
    """Down to ten points, to none, and up to more than there were."""
    some = points(clustered(unit, 1_200))
    queries = clustered(unit, 20, seed=1)
    store, exact = await both(some[:600])
    for left in (10, 0):
        for each in (store, exact):
            await each.delete([point.key for point in some[left:600]])
        assert await listed(store, queries, 5) == await listed(exact, queries, 5)
    for each in (store, exact):
        await each.upsert([])
        await each.upsert(some)
        await each.upsert([])
    assert recall(await listed(store, queries, 20), await listed(exact, queries, 20)) > 0.98


async def test_equals_beyond_the_shortlist_are_in_the_order_of_keys(unit: Unit) -> None:
    vectors = clustered(unit, 2_000)
    vectors[500:1_000] = vectors[500]
    some = points(vectors)
    store, _ = await both(some[::-1])
    for limit in (1, 20, 90):
        [hits] = await listed(store, vectors[500:501], limit)
        assert [hit.key for hit in hits] == [f"k{n:05}" for n in range(500, 500 + limit)]


async def test_a_limit_that_wants_most_points_is_exact(unit: Unit) -> None:
    store, exact = await both(points(clustered(unit, 1_000)))
    queries = clustered(unit, 5, seed=1)
    for limit in (100, 999, 1_000, 5_000):
        assert await listed(store, queries, limit) == await listed(exact, queries, limit)


def test_onnx_runtime_may_be_imported_after_the_index() -> None:
    """As for a component of a process whose encoder is on Triton."""
    code = "from tagbus.stream.memory.hnsw import HnswStore; HnswStore('r', 4); import tagbus.stream.onnx_runtime"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


async def test_vectors_and_payloads_may_lie_on_disk(tmp_path: Path, unit: Unit) -> None:
    """The same hits to the last bit, before and after deletions and a save; the files have no names."""
    some, queries = points(clustered(unit, 3_000)), clustered(unit, 50, seed=1)
    there, on_disk = HnswStore("r", D), HnswStore("r", D, files=tmp_path / "files")
    for store in (there, on_disk):
        await store.upsert(some)
        await store.delete([f"k{n:05}" for n in range(0, 2_000, 7)])
    right = await listed(there, queries, 30)
    assert await listed(on_disk, queries, 30) == right
    await on_disk.save(tmp_path / "kept")
    assert await listed(await taken(HnswStore("r", D), tmp_path / "kept"), queries, 30) == right
    assert (
        await listed(await taken(HnswStore("r", D, files=tmp_path / "files"), tmp_path / "kept"), queries, 30) == right
    )
    assert list((tmp_path / "files").iterdir()) == []


async def test_an_index_is_kept_beside_its_points(tmp_path: Path, unit: Unit, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    store, _ = await both(points(clustered(unit, 1_000)))
    await store.delete(["k00003"])
    await store.save(tmp_path / "cache")
    loaded = await taken(HnswStore("r", D), tmp_path / "cache")
    queries = clustered(unit, 20, seed=1)
    assert await listed(loaded, queries, 30) == await listed(store, queries, 30)
    assert not caplog.messages
    await loaded.upsert(points(queries, first=5_000))
    assert [hits[0].key for hits in await listed(loaded, queries, 3)] == [f"k{n:05}" for n in range(5_000, 5_020)]
    with pytest.raises(ReleaseMismatch):
        await taken(HnswStore("another", D), tmp_path / "cache")


async def test_an_exact_stores_folder_gets_its_index_once(
    tmp_path: Path, unit: Unit, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    _, exact = await both(points(clustered(unit, 1_000)))
    await exact.save(tmp_path / "cache")
    first = await taken(HnswStore("r", D), tmp_path / "cache")
    assert [message.partition(" points")[0] for message in caplog.messages] == ["building the index of 1000"]
    caplog.clear()
    again = await taken(HnswStore("r", D), tmp_path / "cache")
    assert not caplog.messages
    queries = clustered(unit, 20, seed=1)
    assert await listed(first, queries, 30) == await listed(again, queries, 30)
    assert await (await taken(ExactStore("r", D), tmp_path / "cache")).keys() == await exact.keys()


async def test_an_index_that_is_not_of_these_points_is_rebuilt(
    tmp_path: Path, unit: Unit, caplog: pytest.LogCaptureFixture
) -> None:
    """Damaged, of other vectors, built otherwise, without its description: searches by it would be wrong."""
    caplog.set_level(logging.INFO)
    folder = tmp_path / "cache"
    store, exact = await both(points(clustered(unit, 1_000)))
    other = HnswStore("r", D)
    await other.upsert(points(clustered(unit, 1_000, seed=5)))
    await other.save(tmp_path / "other")
    queries = clustered(unit, 50, seed=1)

    def damaged() -> None:
        content = bytearray((folder / index.INDEX).read_bytes())
        content[len(content) // 2] ^= 255
        (folder / index.INDEX).write_bytes(content)

    def of_others() -> None:
        for name in (index.INDEX, index.KEPT):
            (folder / name).write_bytes((tmp_path / "other" / name).read_bytes())

    def made_otherwise() -> None:
        (folder / index.KEPT).write_text((folder / index.KEPT).read_text().replace("usearch", "hnswlib"))

    def undescribed() -> None:
        (folder / index.KEPT).write_text("{")

    def cut() -> None:
        (folder / index.INDEX).unlink()

    for spoil in (damaged, of_others, made_otherwise, undescribed, cut):
        await store.save(folder)
        spoil()
        caplog.clear()
        loaded = await taken(HnswStore("r", D), folder)
        assert caplog.messages[0].startswith("building the index"), spoil
        assert recall(await listed(loaded, queries, 10), await listed(exact, queries, 10)) > 0.95


async def test_an_index_may_hold_the_first_numbers_alone(
    tmp_path: Path, unit: Unit, caplog: pytest.LogCaptureFixture
) -> None:
    """Of vectors whose first numbers say most: similarities are those of the whole vectors. It is built anew for
    another length."""
    caplog.set_level(logging.INFO)
    weights = 0.9 ** np.arange(D)
    some, queries = (unit(clustered(unit, count, seed=seed) * weights) for count, seed in ((3_000, 0), (50, 1)))
    store, exact = HnswStore("r", D, options=IndexOptions(D // 2)), ExactStore("r", D)
    for one in (store, exact):
        await one.upsert(points(some))
        await one.delete([f"k{n:05}" for n in range(0, 3_000, 7)])
    right = {(of(hit), n) for n, hits in enumerate(await listed(exact, queries, 40)) for hit in hits}

    found = await listed(store, queries, 10)

    assert {(of(hit), n) for n, hits in enumerate(found) for hit in hits} <= right
    assert recall(found, await listed(exact, queries, 10)) > 0.95
    assert len(store._apart) < 100
    await store.save(tmp_path / "cache")
    again = HnswStore("r", D, options=IndexOptions(D // 2))
    await again.take(tmp_path / "cache")
    assert await listed(again, queries, 10) == found
    assert not caplog.messages
    await taken(HnswStore("r", D), tmp_path / "cache")
    assert caplog.messages[0].startswith("building the index")


async def test_a_folder_that_takes_no_index_is_no_obstacle(
    tmp_path: Path, unit: Unit, caplog: pytest.LogCaptureFixture
) -> None:
    _, exact = await both(points(clustered(unit, 1_000)))
    await exact.save(tmp_path / "cache")
    (tmp_path / "cache" / index.INDEX / "in the way").mkdir(parents=True)
    store = await taken(HnswStore("r", D), tmp_path / "cache")
    assert "cannot keep its index" in caplog.text
    assert await store.count() == 1_000
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [
        index.INDEX,
        "points.jsonl",
        "store.json",
        "vectors.npy",
    ]


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(UserError, match=r"TAGBUS_MEMORY__KIND=hnsw.*pip install 'tagbus\[hnsw\]'"):
        HnswStore("r", D)
