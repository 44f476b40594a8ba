"""Tags that no model was trained on, searched by their texts."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike

from tagbus.stream.config import RecallSettings
from tagbus.stream.encoder.release import RecallDefaults
from tagbus.stream.memory import ExactStore, Point, Vectors, exact_memory
from tagbus.stream.memory.hits import Carried, TagNumbers
from tagbus.stream.memory.hnsw import HnswStore
from tagbus.stream.memory.qdrant.embedded import EmbeddedStore
from tagbus.stream.memory.store import SelectiveStore
from tagbus.stream.recall.graph import GraphRecall
from tagbus.stream.recall.neighbours import Reach, Seen
from tagbus.stream.recall.taxonomy.unseen import Unseen

DIMENSION = 8
KNOWN = frozenset(f"t{number}" for number in range(60))


def unit(numbers: ArrayLike) -> Vectors:
    array = np.asarray(numbers, np.float64)
    return np.asarray(array / np.linalg.norm(array, axis=-1, keepdims=True), np.float32)


def points(count: int = 80) -> list[Point]:
    """Tags t0 to t79; every seventh is of the tenant `ann`."""
    vectors = unit(np.random.default_rng(0).normal(size=(count, DIMENSION)))
    return [
        Point(f"t{n}", vector, {"name": f"tag {n}", "scopes": ["ann"] if n % 7 == 0 else []})
        for n, vector in enumerate(vectors)
    ]


QUERIES = unit(np.random.default_rng(1).normal(size=(5, DIMENSION)))
NOBODY: list[frozenset[str]] = [frozenset()] * len(QUERIES)


async def found(unseen: Unseen, limit: int, scopes: list[frozenset[str]] | None = None) -> list[list[str]]:
    hits = await unseen.search(QUERIES, limit, scopes)
    assert hits is not None
    return [one.keys.tolist() for one in hits]


def expected(tags: list[Point], limit: int) -> list[list[str]]:
    return [[tag.key for tag in sorted(tags, key=lambda tag: -float(tag.vector @ query))][:limit] for query in QUERIES]


@pytest.mark.parametrize("kind", [ExactStore, HnswStore])
async def test_the_nearest_of_them_are_found_however_many_known_ones_are_nearer(kind: type[ExactStore]) -> None:
    store = kind("r", DIMENSION)
    assert isinstance(store, SelectiveStore)
    await store.upsert(points())
    unseen = Unseen(KNOWN, store)

    assert await found(unseen, 3) == expected(points()[60:], 3)
    assert await found(unseen, 100, NOBODY) == expected(
        [one for one in points()[60:] if not one.payload["scopes"]], 100
    )
    await store.close()


async def test_a_store_that_cannot_choose_finds_those_among_the_nearest_of_all(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path, "r", DIMENSION, Carried(TagNumbers()))
    assert not isinstance(store, SelectiveStore)
    await store.upsert(points())

    some = await found(Unseen(KNOWN, store), 40)

    nearest = expected(points(), 40)
    assert some == [[key for key in keys if key not in KNOWN] for keys in nearest]
    assert all(some)
    await store.close()


async def test_without_any_there_is_nothing_to_search() -> None:
    store = ExactStore("r", DIMENSION)
    await store.upsert(points(60))
    unseen = Unseen(KNOWN, store)

    assert await unseen.search(QUERIES, 3) is None
    await unseen.change({"new": {"name": "new"}, "t1": {"name": "tag 1, renamed"}})
    await store.upsert([Point("new", QUERIES[0], {"name": "new"})])
    assert await found(unseen, 3) == [["new"]] * len(QUERIES)
    await unseen.change({"new": None})
    assert await unseen.search(QUERIES, 3) is None
    await store.close()


async def test_a_tag_that_is_removed_while_memory_is_read_stays_removed() -> None:
    reading = asyncio.Event()

    class Slow(ExactStore):
        async def keys(self) -> set[str]:
            every = await super().keys()
            reading.set()
            await asyncio.sleep(0)
            return every

    store = Slow("r", DIMENSION)
    await store.upsert([Point("old", QUERIES[0], {"name": "old"}), Point("new", QUERIES[1], {"name": "new"})])
    unseen = Unseen(frozenset(), store)
    asked = asyncio.create_task(found(unseen, 3))
    await reading.wait()
    await store.delete(["old"])
    await unseen.change({"old": None})

    assert await asked == [["new"]] * len(QUERIES)
    await store.close()


async def test_c2t_finds_them_alone_and_votes_find_all() -> None:
    memory = exact_memory("r", DIMENSION)
    await memory.tags.upsert(points())
    await memory.exemplars.upsert([Point("e/people", QUERIES[0], {"accepted": ["t1", "t61"]})])

    async def direct(unseen: Unseen | None) -> Seen:
        over = GraphRecall(
            memory.tags, memory.exemplars, RecallDefaults.model_construct(), RecallSettings(), unseen=unseen
        )
        (seen,) = await over.look(["c"], QUERIES[:1], Reach(100, 100))
        return seen

    every, only = await direct(None), await direct(Unseen(KNOWN, memory.tags))

    assert len(every.direct) == 80
    assert only.direct.keys.tolist() == [key for key in every.direct.keys.tolist() if key not in KNOWN]
    ids = memory.tags.numbers.ids
    assert {ids[number] for number in only.near.tags.tolist()} == {"t1", "t61"}
