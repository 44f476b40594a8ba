"""Points that an index does not lead to: set apart, and found all the same."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.stream.memory import Point, Vectors, exact, hnsw
from tagbus.stream.memory.hnsw import HnswStore
from tagbus.stream.memory.rows import vectors
from tests.memory.clusters import points
from tests.memory.listing import taken

Unit = Callable[..., Vectors]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is used from 200 points on, and vectors lie in several slabs, as those of a large store do."""
    monkeypatch.setattr(hnsw, "FLOOR", 200)
    monkeypatch.setattr(vectors, "SLAB", 1_024)
    monkeypatch.setattr(exact, "PIECE", 1_024)


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


async def test_points_unlike_all_others_are_found_as_they_are_now(unit: Unit) -> None:
    """Replaced, deleted, and moved into the rows of deleted ones, from another slab."""
    first, second = unlike(unit, 50), unlike(unit, 50, seed=3)
    store = await with_late(unit, first)
    queries = beside(unit, second, 0.6)
    await found_first(store, queries)

    await store.upsert([Point(f"n{n}", vector, {}) for n, vector in enumerate(second)])
    assert sum(key == f"n{n}" for n, key in enumerate(await found_first(store, queries))) >= 49
    await store.delete([*(f"k{n:05}" for n in range(40)), *(f"n{n}" for n in range(5))])
    found = await found_first(store, queries)
    assert not {f"n{n}" for n in range(5)} & set(found)
    assert sum(key == f"n{n + 5}" for n, key in enumerate(found[5:])) >= 44


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
