"""The numpy store: exact to the last tie, and saved in a folder."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.memory import ExactStore, Point, Vectors, exact
from tagbus.stream.memory.rows import vectors
from tagbus.stream.memory.shortlist import Shortlist
from tests.memory.listing import listed, taken

Unit = Callable[..., Vectors]


def random_points(unit: Unit, count: int, dimension: int, seed: int = 0) -> list[Point]:
    vectors = unit(np.random.default_rng(seed).normal(size=(count, dimension)))
    return [Point(f"k{n}", vector, {"n": n}) for n, vector in enumerate(vectors)]


async def test_it_equals_a_sort_of_all_similarities(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small slabs and pieces, few directions: many ties, many edges; keys and order are those of a plain sort of what
    the content sees."""
    monkeypatch.setattr(vectors, "SLAB", 8)
    monkeypatch.setattr(exact, "PIECE", 4)
    monkeypatch.setattr(exact, "GATHERED", 2)
    monkeypatch.setattr(exact, "QUERIES", 3)
    numbers = st.lists(st.integers(-2, 2), min_size=2, max_size=2).filter(any)

    @settings(max_examples=100)
    @given(
        rows=st.lists(numbers, max_size=60),
        gone=st.sets(st.integers(0, 59)),
        hidden=st.sets(st.integers(0, 59)),
        queries=st.lists(numbers, max_size=8),
        limit=st.integers(1, 70),
    )
    def check(rows: list[Any], gone: set[int], hidden: set[int], queries: list[Any], limit: int) -> None:
        asyncio.run(agree(rows, gone, hidden, queries, limit))

    async def agree(rows: list[Any], gone: set[int], hidden: set[int], queries: list[Any], limit: int) -> None:
        store = ExactStore("r", 2)
        points = [
            Point(f"k{n}", unit(row), {"n": n, "scopes": ["another"] if n in hidden else []})
            for n, row in enumerate(rows)
        ]
        await store.upsert(points)
        await store.delete([f"k{n}" for n in gone])
        left = [each for n, each in enumerate(points) if n not in gone | hidden]
        asked = unit(queries) if queries else np.empty((0, 2), np.float32)
        seen = [frozenset({"own"})] * len(asked)
        for query, hits in zip(asked, await listed(store, asked, limit, seen), strict=True):
            scores = [(each.vector.astype(np.float64) @ query.astype(np.float64), each) for each in left]
            ranked = sorted((-float(np.float32(score).clip(-1, 1)), each.key) for score, each in scores)[:limit]
            assert [(-hit.similarity, hit.key) for hit in hits] == ranked
            assert all(hit.payload["n"] == int(hit.key[1:]) for hit in hits)
        await store.close()

    await asyncio.to_thread(check)


async def test_a_similarity_does_not_depend_on_the_batch_or_the_row(unit: Unit) -> None:
    points = random_points(unit, 20_000, 33)
    store = ExactStore("r", 33)
    await store.upsert(points)
    queries = unit(np.random.default_rng(1).normal(size=(50, 33)))
    together = await listed(store, queries, 40)
    alone = [(await listed(store, query[None], 40))[0] for query in queries]
    assert alone == together
    reverse = ExactStore("r", 33)
    for start in range(0, 20_000, 3_000):
        await reverse.upsert(points[::-1][start : start + 3_000])
    assert await listed(reverse, queries, 40) == together
    scores = queries @ np.stack([each.vector for each in points]).T
    best = -np.sort(-scores, axis=1)[:, :40]
    assert [[hit.similarity for hit in hits] for hits in together] == pytest.approx(best, abs=1e-6)
    await store.close()
    await reverse.close()


async def test_slabs_grow_and_go(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "SLAB", 16)
    monkeypatch.setattr(exact, "PIECE", 8)
    store = ExactStore("r", 5)
    points = random_points(unit, 100, 5)
    await store.upsert(points)
    await store.delete([f"k{n}" for n in range(95)])
    for each in points[95:]:
        assert (await listed(store, each.vector[None], 1))[0][0].key == each.key
    await store.delete([f"k{n}" for n in range(95, 100)])
    assert await store.count() == 0
    await store.upsert(points[:1])
    assert await store.keys() == {"k0"}
    await store.close()


async def test_an_id_that_many_payloads_name_is_one_string(tmp_path: Path, unit: Unit) -> None:
    """Given two payloads with one tag, stored in turn, then it is the same object, also after a load."""

    async def same(store: ExactStore) -> bool:
        first, second = (await store.fetch(["a", "b"])).values()
        assert first == {"accepted": ["bees-1", 2], "id": "a"}
        return first["accepted"][0] is second["accepted"][0]  # type: ignore[index]

    store = ExactStore("r", 2)
    for key, vector in zip("ab", unit([[1, 0], [0, 1]]), strict=True):
        await store.upsert([Point(key, vector, {"accepted": ["bees-1", 2], "id": key})])
        # More than the parser remembers.
        await store.upsert([Point("c", vector, {"accepted": [f"other-{n}" for n in range(100_000)]})])
    assert await same(store)
    await store.save(tmp_path / "kept")
    assert await same(await taken(ExactStore("r", 2), tmp_path / "kept"))


def test_a_shortlist_of_equals_stays_short() -> None:
    """A million copies of one text must not fill the memory: the limit and some 1,000 equals are kept."""
    shortlist = Shortlist(queries=1, limit=10, dimension=4)
    for piece in range(20):
        shortlist.add(np.full((1, 8192), 0.5, np.float32), np.arange(piece * 8192, (piece + 1) * 8192))
    assert 10 <= len(shortlist.rows(0)) <= 10 + 1024


async def test_a_saved_store_is_loaded(tmp_path: Path, unit: Unit) -> None:
    points = random_points(unit, 5_000, 6)
    points.append(Point("ключ\n\x00", unit([1, 2, 3, 4, 5, 6]), {"tags": ["é", "\u2028", None], "n": -1.5}))
    store = ExactStore("r1", 6)
    await store.upsert(points)
    await store.delete(["k7"])
    queries = unit(np.random.default_rng(2).normal(size=(10, 6)))
    found = await listed(store, queries, 20)
    await store.save(tmp_path / "deep" / "cache")
    loaded = await taken(ExactStore("r1", 6), tmp_path / "deep" / "cache")
    assert await loaded.keys() == await store.keys()
    assert await listed(loaded, queries, 20) == found
    assert await loaded.fetch(["ключ\n\x00"]) == {"ключ\n\x00": {"tags": ["é", "\u2028", None], "n": -1.5}}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["cache"]
    await store.close()
    await loaded.close()


async def test_a_save_takes_the_place_of_the_last_one(tmp_path: Path, unit: Unit) -> None:
    store = ExactStore("r1", 3)
    await store.save(tmp_path / "cache")
    assert await (await taken(ExactStore("r1", 3), tmp_path / "cache")).count() == 0
    await store.upsert(random_points(unit, 3, 3))
    await store.save(tmp_path / "cache")
    assert await (await taken(ExactStore("r1", 3), tmp_path / "cache")).count() == 3
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


async def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years")
    with pytest.raises(UserError, match="not empty and holds no store"):
        await ExactStore("r1", 3).save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "ten years"


async def test_a_store_of_another_release_is_refused(tmp_path: Path, unit: Unit) -> None:
    store = ExactStore("r1", 3)
    await store.upsert(random_points(unit, 3, 3))
    await store.save(tmp_path / "cache")
    with pytest.raises(ReleaseMismatch, match=r"'r1'.*'r2'; delete it and let it be rebuilt"):
        await taken(ExactStore("r2", 3), tmp_path / "cache")
    with pytest.raises(ReleaseMismatch, match=r"3 dimensions.*makes 4"):
        await taken(ExactStore("r1", 4), tmp_path / "cache")


async def test_a_damaged_store_is_a_users_error(tmp_path: Path, unit: Unit) -> None:
    store = ExactStore("r1", 3)
    await store.upsert(random_points(unit, 10, 3))
    folder = tmp_path / "cache"

    def pickled() -> None:
        np.save(folder / "vectors.npy", np.array([{}] * 10, object), allow_pickle=True)

    def cut() -> None:
        (folder / "vectors.npy").write_bytes((folder / "vectors.npy").read_bytes()[:-8])

    def zeros() -> None:
        np.save(folder / "vectors.npy", np.zeros((10, 3), np.float32))

    def fewer() -> None:
        lines = (folder / "points.jsonl").read_bytes().splitlines(keepends=True)
        (folder / "points.jsonl").write_bytes(b"".join(lines[:-1]))

    def more() -> None:
        with (folder / "points.jsonl").open("ab") as file:
            file.write(b'["k99",{}]\n')

    def other() -> None:
        (folder / "points.jsonl").write_bytes(b"3\n" * 10)

    def twice() -> None:
        (folder / "points.jsonl").write_bytes(b'["k",{}]\n' * 10)

    def no_json() -> None:
        (folder / "store.json").write_text("{")

    def no_number() -> None:
        (folder / "store.json").write_text(json.dumps({"release": "r1", "dimension": "many"}))

    for damage in (pickled, cut, zeros, fewer, more, other, twice, no_json, no_number):
        await store.save(folder)
        damage()
        with pytest.raises(UserError, match="delete"):
            await taken(ExactStore("r1", 3), folder)
    with pytest.raises(UserError, match="holds no store of tagbus"):
        await taken(ExactStore("r1", 3), tmp_path / "nowhere")
