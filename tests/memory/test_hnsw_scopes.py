"""The store with an index, of which a content sees a part: the same hits, and no search in vain."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tagbus.stream.memory import ExactStore, Point, Vectors, hnsw
from tagbus.stream.memory.exact import Ranked
from tagbus.stream.memory.hnsw import HnswStore
from tests.memory.clusters import D, both, clustered, recall
from tests.memory.listing import listed

Unit = Callable[..., Vectors]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is used from 200 points on, and rather than a comparison with 20 per point requested."""
    monkeypatch.setattr(hnsw, "FLOOR", 200)
    monkeypatch.setattr(hnsw, "ROWS", 20)


async def apart_by_subject(unit: Unit) -> tuple[HnswStore, ExactStore]:
    """The same 8,000 points in both: those around one half of 40 centres have scope `a`, the others `b`."""
    some = clustered(unit, 8_000)
    side = some @ side_of() > 0
    scoped = [
        Point(f"k{n:05}", vector, {"scopes": ["a" if one else "b"]})
        for n, (vector, one) in enumerate(zip(some, side.tolist(), strict=True))
    ]
    return await both(scoped)


def side_of() -> Vectors:
    """A direction: points on its side have scope `a`."""
    return np.random.default_rng(11).normal(size=D).astype(np.float32)


@pytest.mark.parametrize("scope", ["a", "b"])
async def test_scopes_that_go_by_subject_lose_nothing(unit: Unit, scope: str) -> None:
    store, exact = await apart_by_subject(unit)
    queries, seen = clustered(unit, 100, seed=1), [frozenset({scope})] * 100
    found, right = await listed(store, queries, 20, seen), await listed(exact, queries, 20, seen)
    assert all(len(hits) == 20 and {hit.payload["scopes"][0] for hit in hits} == {scope} for hits in found)
    assert recall(found, right) > 0.98


async def test_a_query_amid_points_of_other_scopes_is_compared_without_a_search_in_vain(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given queries deep on either side, then the index is searched for those that are amid their own, and only for as
    many points as if there were no scopes."""
    store, _ = await apart_by_subject(unit)
    queries = unit(clustered(unit, 60, seed=1) + np.repeat([[4], [-4]], 30, axis=0) * unit(side_of()[None]))
    asked, compared = list[tuple[int, int]](), list[int]()
    found, nearest = hnsw._found, ExactStore._nearest

    def counted(index: object, some: Vectors, count: int, points: int) -> list[NDArray[np.int64]]:
        asked.append((len(some), count))
        return found(index, some, count, points)  # type: ignore[arg-type]

    def noted(self: ExactStore, some: Vectors, *others: object) -> list[Ranked]:
        compared.append(len(some))
        return nearest(self, some, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(hnsw, "_found", counted)
    monkeypatch.setattr(ExactStore, "_nearest", noted)
    await store.search(queries, 10, [frozenset("a")] * 60)
    [probe, search] = asked
    assert probe == (60, hnsw.LOOK)
    assert search[0] == 30
    assert search[1] < 2 * (10 + hnsw.MARGIN)
    assert compared == [30]
