"""Visibility in every store: a content sees the points without a scope, and those that share one of its own."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.stream.memory import Point, Store, Vectors, hnsw
from tagbus.stream.memory.exact import ExactStore
from tagbus.stream.memory.hits import KEY
from tagbus.stream.memory.hnsw import HnswStore
from tagbus.stream.memory.scopes import ScopeSets, sees
from tests.memory.history import NUMBERS, Write, histories, written
from tests.memory.listing import listed

Make = Callable[..., Point]
Unit = Callable[..., Vectors]

X, Y = (1, 0, 0, 0), (0, 1, 0, 0)
ANN, BOB, NOBODY = frozenset({"ann"}), frozenset({"bob"}), frozenset[str]()


async def keys(store: Store, query: Vectors, *scopes: frozenset[str]) -> list[list[str]]:
    """The neighbours of one vector that each of these sees, best first."""
    found = await listed(store, np.repeat(query, len(scopes), axis=0), 100, scopes)
    return [[hit.key for hit in hits] for hits in found]


async def test_a_content_sees_points_without_a_scope_or_with_a_shared_one(
    store: Store, point: Make, unit: Unit
) -> None:
    await store.upsert(
        [
            point("everybody's", (4, 1, 0, 0)),
            point("also everybody's", (4, 2, 0, 0), scopes=[]),
            point("ann's", (4, 3, 0, 0), scopes=["ann"]),
            point("bob's", (4, 4, 0, 0), scopes=["bob"]),
            point("theirs", (4, 5, 0, 0), scopes=["ann", "bob"]),
        ]
    )
    both = ["everybody's", "also everybody's"]
    found = await keys(store, unit([X]), ANN, NOBODY, BOB, ANN | BOB, frozenset({"carl"}), ANN)
    assert found == [
        [*both, "ann's", "theirs"],
        both,
        [*both, "bob's", "theirs"],
        [*both, "ann's", "bob's", "theirs"],
        both,
        [*both, "ann's", "theirs"],
    ]
    [everything] = await listed(store, unit([X]), 100)
    assert len(everything) == 5


async def test_scopes_follow_the_payload(store: Store, point: Make, unit: Unit) -> None:
    await store.upsert([point("a", X, scopes=["ann"]), point("b", Y, scopes=["bob"])])
    await store.set_payloads({"a": {"scopes": ["bob"]}})
    await store.upsert([point("b", Y, scopes=["ann"])])
    assert await keys(store, unit([X]), ANN, BOB) == [["b"], ["a"]]
    await store.delete(["a"])
    assert await keys(store, unit([X]), ANN, BOB) == [["b"], []]
    await store.set_payloads({"b": {}})
    assert await keys(store, unit([X]), ANN, BOB, NOBODY) == [["b"], ["b"], ["b"]]


async def test_the_limit_counts_visible_points(store: Store, point: Make, unit: Unit) -> None:
    """The nearest points belong to another tenant: one's own are found although they are further away."""
    await store.upsert([point(f"bob{n:02}", (9, 1, n / 99, 0), scopes=["bob"]) for n in range(40)])
    await store.upsert([point(f"ann{n}", (n, 9, 0, 0), scopes=["ann"]) for n in range(3)])
    [hits] = await listed(store, unit([X]), 2, [ANN])
    assert [hit.key for hit in hits] == ["ann2", "ann1"]


async def test_no_content_sees_a_replaced_tag(opener: Any, point: Make, unit: Unit) -> None:
    """It can be looked up, after its first publication or a change, and becomes visible again."""
    async with opener(4, KEY) as store:
        await store.upsert([point("a", X), point("b", Y, scopes=["ann"], replaced_by=["a"]), point("c", Y)])
        await store.set_payloads({"c": {"replaced_by": ["a"]}})
        assert await keys(store, unit([X]), ANN, NOBODY) == [["a"], ["a"]]
        assert [[hit.key for hit in hits] for hits in await listed(store, unit([X]), 100)] == [["a"]]
        assert await store.fetch(["c"]) == {"c": {"replaced_by": ["a"]}}

        await store.set_payloads({"b": {"scopes": ["ann"], "replaced_by": []}, "a": {"replaced_by": ["b"]}})
        assert await keys(store, unit([X]), ANN, NOBODY) == [["b"], []]
        assert [[hit.key for hit in hits] for hits in await listed(store, unit([X]), 100)] == [["b"]]


async def test_there_is_one_set_of_scopes_a_query(store: Store, unit: Unit) -> None:
    with pytest.raises(ValueError, match="2 queries and 1 sets of scopes"):
        await store.search(unit([X, Y]), 1, [ANN])


async def test_two_tenants_never_see_each_others_points(opener: Any, unit: Unit) -> None:
    """Whatever is stored, changed and deleted, in any order, a search equals one over what the scopes see."""
    scopes = st.sets(st.sampled_from(["ann", "bob", "carl"]), max_size=2)
    successors = st.sampled_from([[], [], [], ["a"]])
    payloads = st.builds(lambda names, ids: {"scopes": sorted(names), "replaced_by": ids}, scopes, successors)

    async def agree(store: Store, steps: list[Write], asked: list[Any], limit: int) -> None:
        expected = await written(store, unit, steps)
        queries = unit([vector for vector, _ in asked])
        own = [frozenset(names) for _, names in asked]
        for query, names, hits in zip(queries, own, await listed(store, queries, limit, own), strict=True):
            seen = {key: vector @ query for key, (vector, payload) in expected.items() if sees(names, payload)}
            assert {hit.key for hit in hits} <= seen.keys()
            best = sorted(seen.values(), reverse=True)[:limit]
            assert [hit.similarity for hit in hits] == pytest.approx(best, abs=1e-5)

    async with opener(3) as store:
        loop = asyncio.get_running_loop()

        @settings(max_examples=50)
        @given(
            steps=histories(payloads, 25),
            asked=st.lists(st.tuples(NUMBERS, scopes), min_size=1, max_size=4),
            limit=st.integers(1, 10),
        )
        def check(steps: list[Write], asked: list[Any], limit: int) -> None:
            asyncio.run_coroutine_threadsafe(agree(store, steps, asked, limit), loop).result()

        await asyncio.to_thread(check)


D = 24


def clustered(unit: Unit, count: int, centres: int, seed: int) -> Vectors:
    random = np.random.default_rng(seed)
    middle = np.random.default_rng(7).normal(size=(40, D))[:centres]
    return unit(middle[random.integers(centres, size=count)] + 0.7 * random.normal(size=(count, D)))


@pytest.mark.parametrize("share", [0.02, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("where", ["among the others", "elsewhere"])
async def test_an_index_loses_nothing_to_a_filter(
    unit: Unit, monkeypatch: pytest.MonkeyPatch, share: float, where: str
) -> None:
    """Given a tenant with this share of the points, among the others or where the queries are not, recall is that of a
    search without a filter."""
    monkeypatch.setattr(hnsw, "FLOOR", 50)
    monkeypatch.setattr(hnsw, "ROWS", 1)
    count = 4_000
    own = np.random.default_rng(2).random(count) < share
    vectors = clustered(unit, count, 40, seed=0)
    if where == "elsewhere":
        vectors[own] = -clustered(unit, count, 1, seed=3)[own]
    points = [
        Point(f"k{n:05}", vector, {"scopes": ["ann" if mine else "bob"]})
        for n, (vector, mine) in enumerate(zip(vectors, own.tolist(), strict=True))
    ]
    indexed, exact = HnswStore("r", D), ExactStore("r", D)
    for store in (indexed, exact):
        await store.upsert(points)
    queries = clustered(unit, 40, 1, seed=1)

    found, right = [await listed(store, queries, 10, [ANN] * 40) for store in (indexed, exact)]

    same = [len({hit.key for hit in a} & {hit.key for hit in b}) for a, b in zip(found, right, strict=True)]
    assert all(len(hits) == 10 for hits in found)
    assert sum(same) > 0.97 * 400


def test_a_set_of_scopes_that_nothing_has_any_longer_is_forgotten() -> None:
    """Tenants come and go: only their current number counts."""
    sets = ScopeSets()
    for tenant in range(1_000):
        number = sets.enter(frozenset({f"tenant-{tenant}"}))
        assert sets.count(frozenset({f"tenant-{tenant}"})) == 1
        sets.leave(number)
        assert sets.count(frozenset({f"tenant-{tenant}"})) == 0
    assert len(sets.visible(NOBODY)) == 1
