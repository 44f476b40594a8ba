"""The contract of every store, for each engine."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tagbus.stream.memory import Point, Store, Vectors
from tests.memory.listing import listed

Make = Callable[..., Point]
Unit = Callable[..., Vectors]

X, Y, Z = (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)


async def test_an_empty_store_finds_nothing(store: Store, unit: Unit) -> None:
    assert await store.count() == 0
    assert await store.keys() == set()
    assert await store.fetch(["a"]) == {}
    assert await listed(store, unit([X, Y]), 5) == [[], []]
    await store.delete(["a"])
    await store.delete([])


async def test_empty_batches_do_nothing(store: Store, point: Make) -> None:
    await store.upsert([])
    await store.upsert([point("a", X)])
    assert await listed(store, np.empty((0, 4), np.float32), 5) == []
    assert await store.fetch([]) == {}
    assert await store.count() == 1


async def test_hits_come_best_first_with_cosine_and_payload(store: Store, point: Make, unit: Unit) -> None:
    await store.upsert([point("far", Y, n=1), point("near", X, n=2), point("between", (1, 1, 0, 0), n=3)])
    [hits] = await listed(store, unit([X]), 3)
    assert [hit.key for hit in hits] == ["near", "between", "far"]
    assert [hit.similarity for hit in hits] == pytest.approx([1, 0.5**0.5, 0], abs=1e-6)
    assert [hit.payload for hit in hits] == [{"n": 2}, {"n": 3}, {"n": 1}]


async def test_each_query_gets_its_own_hits(store: Store, point: Make, unit: Unit) -> None:
    await store.upsert([point("x", X), point("y", Y), point("z", Z)])
    found = await listed(store, unit([Z, X, Y]), 1)
    assert [[hit.key for hit in hits] for hits in found] == [["z"], ["x"], ["y"]]


async def test_a_limit_beyond_the_count_gives_all(store: Store, point: Make, unit: Unit) -> None:
    await store.upsert([point("x", X), point("y", Y)])
    [hits] = await listed(store, unit([X]), 1000)
    assert [hit.key for hit in hits] == ["x", "y"]


async def test_an_upsert_replaces_by_key(store: Store, point: Make, unit: Unit) -> None:
    await store.upsert([point("a", X, old=True), point("b", Y)])
    await store.upsert([point("a", Z, new=True)])
    assert await store.count() == 2
    [hits] = await listed(store, unit([Z]), 1)
    assert (hits[0].key, hits[0].payload) == ("a", {"new": True})
    assert hits[0].similarity == pytest.approx(1)


async def test_of_one_key_twice_in_a_batch_the_last_is_stored(store: Store, point: Make) -> None:
    await store.upsert([point("a", X, n=1), point("b", Y), point("a", Z, n=2)])
    assert await store.count() == 2
    assert await store.fetch(["a"]) == {"a": {"n": 2}}


async def test_a_thousand_updates_of_one_key_leave_one_point_the_last(store: Store, point: Make, unit: Unit) -> None:
    """Its neighbour is still found: earlier versions take no ranks in a search."""
    await store.upsert([point("neighbour", Y, n=-1)])
    updates = [point("one", (X, Y, Z)[number % 3], n=number) for number in range(1_000)]
    for start in range(0, 1_000, 20):
        await store.upsert(updates[start : start + 20])
    assert await store.count() == 2
    assert await store.fetch(["one"]) == {"one": {"n": 999}}
    [by_last, by_earlier] = await listed(store, unit([X, Y]), 2)
    assert [(hit.key, hit.similarity) for hit in by_last] == [("one", pytest.approx(1)), ("neighbour", 0)]
    assert [hit.key for hit in by_earlier] == ["neighbour", "one"]


async def test_fetch_returns_existing_points(store: Store, point: Make) -> None:
    await store.upsert([point("a", X, n=1), point("b", Y, n=2)])
    assert await store.fetch(["b", "missing", "a", "b"]) == {"a": {"n": 1}, "b": {"n": 2}}


async def test_a_deleted_point_is_not_found(store: Store, point: Make, unit: Unit) -> None:
    await store.upsert([point(key, vector) for key, vector in zip("abc", (X, Y, Z), strict=True)])
    await store.delete(["a", "missing", "a"])
    assert await store.keys() == {"b", "c"}
    assert await store.count() == 2
    found = await listed(store, unit([X, Y, Z]), 3)
    assert [hits[0].key for hits in found[1:]] == ["b", "c"]
    assert all(hit.key != "a" for hits in found for hit in hits)
    await store.upsert([point("a", X)])
    assert [hit.key for hit in (await listed(store, unit([X]), 1))[0]] == ["a"]


async def test_keys_are_any_text(store: Store, point: Make, unit: Unit) -> None:
    keys = ["", " ", "ключ", "タグ/¿?#%", "a\x00b", "k" * 5000, "00000000-0000-0000-0000-000000000000", "7"]
    await store.upsert([point(key, X, key=key) for key in keys])
    assert await store.keys() == set(keys)
    assert await store.fetch(keys) == {key: {"key": key} for key in keys}
    assert [hit.key for hit in (await listed(store, unit([X]), 10))[0]] == sorted(keys)
    await store.delete(keys[:-1])
    assert await store.keys() == {"7"}


async def test_payloads_come_back_as_they_were(store: Store, point: Make, unit: Unit) -> None:
    payload: dict[str, Any] = {
        "text": 'naïve "quotes" \\ 日本語 🏷 \x00\u2028',
        "numbers": [0, -1, 2**53 + 1, 1.5, 1e-300],
        "nested": {"list": [{"empty": {}, "none": None}, [], [[True, False]]]},
        "key": "mine",
        "": "",
    }
    await store.upsert([point("a", X, **payload), point("b", Y)])
    assert await store.fetch(["a", "b"]) == {"a": payload, "b": {}}
    assert (await listed(store, unit([X]), 1))[0][0].payload == payload


async def test_a_payload_changed_after_the_upsert_changes_nothing(store: Store, unit: Unit) -> None:
    payload: dict[str, Any] = {"tags": ["a"]}
    await store.upsert([Point("a", unit(X), payload)])
    payload["tags"].append("b")
    assert await store.fetch(["a"]) == {"a": {"tags": ["a"]}}


async def test_ties_are_in_the_order_of_keys(store: Store, point: Make, unit: Unit) -> None:
    keys = [f"{n:03}" for n in np.random.default_rng(0).permutation(300)]
    await store.upsert([point(key, (1, 2, 3, 4)) for key in keys])
    await store.upsert([point("best", (1, 2, 3, 5))])
    for limit in (1, 2, 17, 200):
        [hits] = await listed(store, unit([(1, 2, 3, 5)]), limit)
        assert [hit.key for hit in hits] == ["best", *sorted(keys)][:limit]


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        (np.array([np.nan, 0, 0, 1], np.float32), "finite"),
        (np.array([np.inf, 0, 0, 0], np.float32), "finite"),
        (np.array([0, 0, 0, 0], np.float32), "length 0, expected 1"),
        (np.array([3, 4, 0, 0], np.float32), "length 5, expected 1"),
        (np.array([1, 0, 0], np.float32), r"\[3\], expected float32 \[4\]"),
        (np.array([[1, 0, 0, 0]], np.float32), r"\[1, 4\], expected float32 \[4\]"),
        (np.array([1, 0, 0, 0], np.float64), "float64"),
    ],
)
async def test_a_bad_vector_is_refused_with_its_whole_batch(
    store: Store, point: Make, vector: np.ndarray[Any, Any], said: str
) -> None:
    await store.upsert([point("kept", X, n=1)])
    with pytest.raises(ValueError, match=f"'bad'.*{said}"):
        await store.upsert([point("good", Y), Point("bad", vector, {}), point("kept", Z, n=2)])
    assert await store.keys() == {"kept"}
    assert await store.fetch(["kept"]) == {"kept": {"n": 1}}


async def test_a_bad_payload_or_key_is_refused_with_its_whole_batch(store: Store, point: Make) -> None:
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    for bad in (
        point("bad", X, n=float("nan")),
        point("bad", X, n=object()),
        point("bad", X, n="\ud800"),
        point("bad", X, n=deep),
        point("\ud800", X),
    ):
        with pytest.raises(ValueError, match=r"bad|surrogates"):
            await store.upsert([point("good", Y), bad])
    await store.upsert([point("brackets in text", X, text="[" * 100 + '\\"{')])
    assert await store.keys() == {"brackets in text"}


async def test_bad_queries_are_refused(store: Store, point: Make, unit: Unit) -> None:
    await store.upsert([point("a", X)])
    bad = unit([X, Y])
    bad[1, 2] = np.nan
    with pytest.raises(ValueError, match="query 1 is not finite"):
        await listed(store, bad, 1)
    with pytest.raises(ValueError, match=r"\[1, 3\], expected float32 \[n, 4\]"):
        await listed(store, unit([(1, 0, 0)]), 1)
    with pytest.raises(ValueError, match=r"\[4\], expected"):
        await listed(store, unit(X), 1)
    with pytest.raises(ValueError, match="limit is 0, expected at least 1"):
        await listed(store, unit([X]), 0)


async def test_a_search_sees_each_point_whole(store: Store, unit: Unit) -> None:
    """Points turn between two forms while others search: never the vector of one with the tags of the other."""
    forms = [(unit(X), "x"), (unit(Y), "y")]
    keys = [f"k{n}" for n in range(20)]

    async def write(rounds: int) -> None:
        for turn in range(rounds):
            vector, name = forms[turn % 2]
            await store.upsert([Point(key, vector, {"tags": [name]}) for key in keys])

    async def read() -> None:
        while not writer.done():
            hits = await store.search(unit([X, Y]), 20)
            for found, name in zip(hits, "xy", strict=True):
                assert found.tag_starts.tolist() == list(range(len(found) + 1))
                carried = [store.numbers.ids[tag] for tag in found.tags.tolist()]
                for similarity, tag in zip(found.scores.tolist(), carried, strict=True):
                    assert (similarity > 0.5) == (tag == name)
            await asyncio.sleep(0)

    await write(1)
    writer = asyncio.create_task(write(40))
    await asyncio.gather(writer, *(read() for _ in range(4)))
    assert await store.count() == 20


async def test_concurrent_upserts_and_deletes_lose_nothing(store: Store, point: Make) -> None:
    batches = [[point(f"{batch}-{n}", X) for n in range(25)] for batch in range(8)]
    await asyncio.gather(*(store.upsert(batch) for batch in batches))
    await asyncio.gather(*(store.delete([each.key for each in batch]) for batch in batches[::2]))
    assert await store.keys() == {each.key for batch in batches[1::2] for each in batch}


async def test_a_search_equals_brute_force_after_any_history(opener: Any, unit: Unit) -> None:
    """Upserts, replacements and deletes in any order, then the similarities are those of the reference."""
    numbers = st.integers(-3, 3)
    vectors = st.lists(numbers, min_size=3, max_size=3).filter(any)
    steps = st.lists(st.tuples(st.sampled_from("abcdefghij"), st.none() | vectors), max_size=30)

    async def agree(store: Store, steps: list[Any], queries: Vectors, limit: int) -> None:
        await store.delete(list(await store.keys()))
        expected: dict[str, Vectors] = {}
        for key, vector in steps:
            if vector is None:
                await store.delete([key])
                expected.pop(key, None)
            else:
                await store.upsert([Point(key, unit(vector), {})])
                expected[key] = unit(vector)
        assert await store.keys() == set(expected)
        for query, hits in zip(queries, await listed(store, queries, limit), strict=True):
            truth = {key: float(vector @ query) for key, vector in expected.items()}
            best = sorted(truth.values(), reverse=True)[:limit]
            assert [hit.similarity for hit in hits] == pytest.approx(best, abs=1e-5)
            assert all(truth[hit.key] == pytest.approx(hit.similarity, abs=1e-5) for hit in hits)
            assert len({hit.key for hit in hits}) == len(hits)
            assert all((-one.similarity, one.key) < (-two.similarity, two.key) for one, two in pairwise(hits))

    async with opener(3) as store:
        loop = asyncio.get_running_loop()

        @settings(max_examples=50)
        @given(steps=steps, queries=st.lists(vectors, min_size=1, max_size=4), limit=st.integers(1, 12))
        # Equal as float32, not as float64.
        @example(steps=[("a", [0, 1, -3]), ("b", [1, 3, 0])], queries=[[0, 3, -2]], limit=2)
        def check(steps: list[Any], queries: list[Any], limit: int) -> None:
            asyncio.run_coroutine_threadsafe(agree(store, steps, unit(queries), limit), loop).result()

        await asyncio.to_thread(check)


async def test_payloads_are_replaced_and_vectors_stay(store: Store, point: Make, unit: Unit) -> None:
    await store.upsert([point("a", X, n=1, tags=["t1"]), point("b", Y, n=2, tags=["t2"])])
    await store.set_payloads({"a": {"n": 3, "tags": ["t3", "t1"]}, "missing": {"n": 4}})
    assert await store.keys() == {"a", "b"}
    assert await store.fetch(["a", "b"]) == {"a": {"n": 3, "tags": ["t3", "t1"]}, "b": {"n": 2, "tags": ["t2"]}}
    [hits] = await listed(store, unit([X]), 2)
    assert [(hit.key, hit.tags) for hit in hits] == [("a", ["t3", "t1"]), ("b", ["t2"])]
    assert hits[0].similarity == pytest.approx(1)
    await store.set_payloads({})


async def test_a_payload_that_is_no_json_replaces_none(store: Store, point: Make) -> None:
    await store.upsert([point("a", X, n=1), point("b", Y, n=2)])
    with pytest.raises(ValueError, match="the payload of 'b' is not JSON"):
        await store.set_payloads({"a": {"n": 3}, "b": {"n": float("nan")}})
    assert await store.fetch(["a", "b"]) == {"a": {"n": 1}, "b": {"n": 2}}


async def test_a_hit_carries_its_tags_each_once(store: Store, point: Make, unit: Unit) -> None:
    """A value that is not a text, or not a list, is not a tag."""
    payloads: dict[str, Any] = {"a": ["t1", "t2", "t1"], "b": [], "c": ["t2", 7, None], "d": "t1"}
    for (key, tags), vector in zip(payloads.items(), (X, (1, 1, 0, 0), Y, Z), strict=True):
        await store.upsert([point(key, vector, tags=tags)])
    [hits] = await listed(store, unit([(8, 4, 2, 1)]), 9)
    assert {hit.key: hit.tags for hit in hits} == {"a": ["t1", "t2"], "b": [], "c": ["t2"], "d": []}
    assert sorted(store.numbers.ids) == ["t1", "t2"]
