"""The store with an index: nearly the exact store's hits, each with the exact store's similarity, after any history."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def islands(unit: Unit, count: int) -> Vectors:
    """Unit vectors of 64 dimensions, many copies of each of 40: an index links a copy to other copies."""
    random = np.random.default_rng(0)
    centres = unit(random.normal(size=(40, 64)))
    return unit(centres[random.integers(40, size=count)] + 0.01 * random.normal(size=(count, 64)))


def unlike(unit: Unit, count: int, seed: int = 1) -> Vectors:
    """Unit vectors of 64 dimensions in any direction."""
    return unit(np.random.default_rng(seed).normal(size=(count, 64)))


def beside(unit: Unit, vectors: Vectors, similarity: float) -> Vectors:
    """A unit vector for each, as similar to it as that."""
    away = np.random.default_rng(2).normal(size=vectors.shape)
    away = unit(away - np.sum(away * vectors, axis=1, keepdims=True) * vectors)
    return unit(similarity * vectors + (1 - similarity**2) ** 0.5 * away)


async def with_late(unit: Unit, late: Vectors, **payload: list[str]) -> HnswStore:
    """A store of 4,000 copies, to which those come one by one as n0, n1 and so on."""
    store = HnswStore("r", 64)
    await store.upsert(points(islands(unit, 4_000)))
    for n, vector in enumerate(late):
        await store.upsert([Point(f"n{n}", vector, payload)])
    return store


async def found_first(store: HnswStore, queries: Vectors, scopes: frozenset[str] | None = None) -> list[str]:
    hits = await store.search(queries, 10, None if scopes is None else [scopes] * len(queries))
    return [one.keys[0] for one in hits]


async def test_a_point_unlike_all_others_is_found(tmp_path: Path, unit: Unit) -> None:
    """From queries near it, although its neighbours in the index link to what is nearer to them: when it comes, when
    others have come and gone after it, and after a load."""
    late = unlike(unit, 50)
    names = [f"n{n}" for n in range(50)]
    store = await with_late(unit, late)

    async def check(store: HnswStore) -> None:
        for similarity in (0.6, 0.8, 1.0):
            pairs = zip(await found_first(store, beside(unit, late, similarity)), names, strict=True)
            assert sum(key == name for key, name in pairs) >= 49, similarity

    await check(store)
    await store.upsert(points(islands(unit, 1_500), first=10_000))
    await store.delete([f"k{n:05}" for n in range(0, 2_000, 3)])
    await check(store)
    await store.save(tmp_path / "kept")
    await check(await taken(HnswStore("r", 64), tmp_path / "kept"))


async def test_a_point_unlike_all_others_that_is_replaced_or_deleted_is_found_as_it_is_now(unit: Unit) -> None:
    first, second = unlike(unit, 30), unlike(unit, 30, seed=3)
    store = await with_late(unit, first)
    queries = beside(unit, second, 0.8)
    await found_first(store, queries)

    await store.upsert([Point(f"n{n}", vector, {}) for n, vector in enumerate(second)])
    assert sum(key == f"n{n}" for n, key in enumerate(await found_first(store, queries))) >= 29
    await store.delete([f"n{n}" for n in range(15)])
    found = await found_first(store, queries)
    assert not {f"n{n}" for n in range(15)} & set(found)
    assert sum(key == f"n{n + 15}" for n, key in enumerate(found[15:])) >= 14


async def test_what_the_index_misses_obeys_scopes(unit: Unit) -> None:
    late = unlike(unit, 30)
    store = await with_late(unit, late, scopes=["a"])
    queries = beside(unit, late, 0.7)
    assert sum(key == f"n{n}" for n, key in enumerate(await found_first(store, queries, frozenset("a")))) >= 29
    assert all(key.startswith("k") for key in await found_first(store, queries, frozenset("b")))


async def test_of_too_many_that_the_index_misses_the_last_are_found(
    unit: Unit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hnsw, "APART", 20)
    late = unlike(unit, 60)
    store = await with_late(unit, late)
    found = await found_first(store, beside(unit, late, 0.6))
    assert found[-15:] == [f"n{n}" for n in range(45, 60)]
    assert [record.levelname for record in caplog.records if "misses more than 20" in record.message] == ["WARNING"]


async def test_every_point_finds_itself_after_any_history(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies and points unlike all others come, change and go in any order."""
    monkeypatch.setattr(hnsw, "FLOOR", 1)
    copies, others = islands(unit, 2_000), unlike(unit, 60)
    numbers = st.integers(0, 59)
    steps = st.lists(st.tuples(st.sampled_from(["put", "delete", "move"]), numbers, numbers), max_size=60)

    @settings(max_examples=15)
    @given(steps=steps)
    def check(steps: list[tuple[str, int, int]]) -> None:
        asyncio.run(replay(steps))

    async def replay(steps: list[tuple[str, int, int]]) -> None:
        store, there = HnswStore("r", 64), dict[str, int]()
        await store.upsert(points(copies[:600]))
        for turn, (step, one, other) in enumerate(steps):
            if step == "delete":
                await store.delete([f"n{one}", f"k{one:05}"])
                there.pop(f"n{one}", None)
            else:
                there[f"n{one}"] = one if step == "put" else other
                await store.upsert([Point(f"n{one}", others[there[f"n{one}"]], {})])
            await store.upsert(points(copies[600 + 20 * turn : 620 + 20 * turn], first=1_000 + 20 * turn))
        hits = await store.search(others, 5)
        for number, found in enumerate(hits):
            if number in there.values():
                assert found.scores[0] == pytest.approx(1, abs=1e-6)
                assert there[found.keys[0]] == number
        await store.close()

    await asyncio.to_thread(check)


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
