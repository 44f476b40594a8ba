"""Validity periods in every store: from `valid_from`, inclusive, until `valid_until`, exclusive."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.stream.memory import Point, Store, Vectors, exact
from tagbus.stream.memory.exact import ExactStore
from tagbus.stream.memory.validity import FIRST, LAST, is_valid, microseconds, period
from tests.memory.history import NUMBERS, Write, histories, written
from tests.memory.listing import listed, taken

Make = Callable[..., Point]
Unit = Callable[..., Vectors]

X = (1, 0, 0, 0)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)


async def keys(store: Store, query: Vectors, at: datetime | None, *scopes: str) -> list[str]:
    [hits] = await listed(store, query, 100, [frozenset(scopes)], at)
    return [hit.key for hit in hits]


async def test_the_first_moment_counts_and_the_last_does_not(store: Store, point: Make, unit: Unit) -> None:
    noon = NOON.isoformat().replace("+00:00", "Z")
    await store.upsert(
        [
            point("always", (9, 1, 0, 0)),
            point("also always", (9, 2, 0, 0), valid_from=None, valid_until=None),
            point("from noon", (9, 3, 0, 0), valid_from=noon, valid_until=None),
            point("until noon", (9, 4, 0, 0), valid_from=None, valid_until=noon),
            point("elsewhere", (9, 5, 0, 0), valid_from="2026-06-01T14:00:00+02:00", valid_until=None),
        ]
    )
    query, always = unit([X]), ["always", "also always"]
    assert await keys(store, query, NOON - TICK) == [*always, "until noon"]
    assert await keys(store, query, NOON) == [*always, "from noon", "elsewhere"]
    assert await keys(store, query, NOON + TICK) == [*always, "from noon", "elsewhere"]
    assert len(await keys(store, query, None)) == 5


async def test_validity_follows_the_payload(store: Store, point: Make, unit: Unit) -> None:
    past, query = "2020-01-01T00:00:00Z", unit([X])
    await store.upsert([point("a", (9, 1, 0, 0), valid_until=past), point("b", (9, 2, 0, 0))])
    assert await keys(store, query, NOON) == ["b"]
    await store.set_payloads({"a": {}, "b": {"valid_until": past}})
    assert await keys(store, query, NOON) == ["a"]
    await store.upsert([point("b", (9, 2, 0, 0))])
    assert await keys(store, query, NOON) == ["a", "b"]


async def test_expired_points_take_no_rank(store: Store, point: Make, unit: Unit) -> None:
    """Given 60 expired points that are nearer than the valid ones, and scopes, the limit counts visible valid ones."""
    expired = [point(f"old{n:02}", (9, 1, n / 99, 0), valid_until="2026-01-01T00:00:00Z") for n in range(60)]
    theirs = [point(f"theirs{n}", (9, 2, n, 0), scopes=["bob"]) for n in range(5)]
    await store.upsert([*expired, *theirs, *(point(f"new{n}", (n, 9, 0, 0), scopes=["ann"]) for n in range(3))])
    [hits] = await listed(store, unit([X]), 2, [frozenset({"ann"})], NOON)
    assert [hit.key for hit in hits] == ["new2", "new1"]


async def test_search_equals_one_over_valid_points(opener: Any, unit: Unit) -> None:
    """Whatever is stored, changed and deleted, in any order."""
    times = st.none() | st.integers(-2, 2).map(lambda n: (NOON + n * TICK).isoformat())
    payloads = st.fixed_dictionaries({"valid_from": times, "valid_until": times})

    async def agree(store: Store, steps: list[Write], query: Any, at: datetime) -> None:
        expected = await written(store, unit, steps)
        [hits] = await listed(store, unit([query]), 10, None, at)
        assert {hit.key for hit in hits} == {key for key, (_, payload) in expected.items() if is_valid(payload, at)}

    async with opener(3) as store:
        loop = asyncio.get_running_loop()

        @settings(max_examples=30)
        @given(
            steps=histories(payloads, 20),
            query=NUMBERS,
            at=st.integers(-3, 3).map(lambda n: NOON + n * TICK),
        )
        def check(steps: list[Write], query: Any, at: datetime) -> None:
            asyncio.run_coroutine_threadsafe(agree(store, steps, query, at), loop).result()

        await asyncio.to_thread(check)


async def test_rows_beyond_the_first_block_have_periods_of_their_own(unit: Unit, point: Make) -> None:
    """Rows are added, moved into gaps and removed where periods begin to be kept late."""
    store = ExactStore("r", 4)
    await store.upsert([point(f"k{n:04}", (9, n / 3000, 0, 0)) for n in range(3_000)])
    await store.upsert([point("late", (9, 0, 0, 0), valid_until="2026-01-01T00:00:00Z")])
    assert "late" not in await keys(store, unit([X]), NOON)
    # The last row, which has expired, moves into the gap of the first.
    await store.delete(["k0000"])
    assert (await keys(store, unit([X]), NOON))[0] == "k0001"
    await store.delete(["late"])
    await store.upsert([point("again", (9, 0, 0, 0))])
    assert (await keys(store, unit([X]), NOON))[0] == "again"
    await store.close()


async def test_a_saved_store_keeps_validity(tmp_path: Any, point: Make, unit: Unit) -> None:
    store = ExactStore("r", 4)
    await store.upsert([point("old", X, valid_until="2026-01-01T00:00:00Z"), point("new", X)])
    await store.save(tmp_path / "store")
    again = await taken(exact.ExactStore("r", 4), tmp_path / "store")
    assert await keys(again, unit([X]), NOON) == ["new"]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({}, (FIRST, LAST)),
        ({"valid_from": "1970-01-01T00:00:00.000001Z"}, (1, LAST)),
        ({"valid_until": "1969-12-31T23:59:59.999999Z"}, (FIRST, -1)),
        ({"valid_from": "0001-01-01T00:00:00+14:00", "valid_until": "9999-12-31T23:59:59-14:00"}, (FIRST, LAST)),
    ],
)
def test_a_period_is_exact_to_the_microsecond(payload: dict[str, Any], expected: tuple[int, int]) -> None:
    assert period(payload) == expected
    assert np.float64(microseconds(NOON)) - np.float64(microseconds(NOON - TICK)) == 1
