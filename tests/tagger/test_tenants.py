"""Tenants are isolated in every store and recaller: a content gets the tags it would get if the other tenants did not
exist."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from qdrant_client import AsyncQdrantClient

from tagbus.stream.config import RecallSettings
from tagbus.stream.encoder.release import RecallDefaults
from tagbus.stream.memory import Carried, ExactStore, Memory, Point, Store, Vectors, hnsw, memory_of
from tagbus.stream.memory.hnsw import HnswStore
from tagbus.stream.memory.kinds import carrying
from tagbus.stream.memory.qdrant.client import Server
from tagbus.stream.memory.qdrant.collections import CollectionSpec
from tagbus.stream.memory.qdrant.embedded import EmbeddedStore
from tagbus.stream.memory.qdrant.server import ServerStore
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.graph import Candidate, GraphRecall
from tagbus.stream.recall.lexical.bm25 import Bm25Recall
from tagbus.stream.recall.lexical.literal import LiteralRecall
from tests.tagger.ranking import Stages
from tests.tagger.test_rank import Longest

D: Final = 8
FITTED = RecallDefaults(
    c2t_threshold=-1, c2c_threshold=-1, tau=0.1, lambda_=0.5, tag_keys=3, content_keys=4, c2t_limit=1, c2c2t_limit=1
)
TENANTS = ("ann", "bob")
TAGS = [f"t{n}" for n in range(7)]
CONTENTS = [f"c{n}" for n in range(6)]


@dataclass(frozen=True)
class Said:
    """A tag, or a content with its decisions, and who sees it."""

    scopes: tuple[str, ...] = ()
    replaced_by: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    source: str = "people"

    def seen(self, scopes: frozenset[str]) -> bool:
        return not self.scopes or not scopes.isdisjoint(self.scopes)


World = tuple[Mapping[str, Said], Mapping[str, Said]]
SCOPES: SearchStrategy[tuple[str, ...]] = st.sampled_from([(), *[(one,) for one in TENANTS], TENANTS])
IDS = st.lists(st.sampled_from(TAGS), max_size=4, unique=True).map(tuple)
NONE: SearchStrategy[tuple[str, ...]] = st.just(())
REPLACED = st.one_of(NONE, NONE, NONE, st.lists(st.sampled_from(TAGS), max_size=2, unique=True).map(tuple))
SOURCES = st.sampled_from(["people", "machine"])
# All tags and contents but some.
WORLDS: SearchStrategy[World] = st.tuples(
    st.fixed_dictionaries(
        {tag: st.builds(Said, SCOPES, REPLACED) for tag in TAGS[:-1]}, optional={TAGS[-1]: st.builds(Said, SCOPES)}
    ),
    st.fixed_dictionaries(
        {key: st.builds(Said, SCOPES, accepted=IDS, rejected=IDS, source=SOURCES) for key in CONTENTS[:-1]},
        optional={CONTENTS[-1]: st.builds(Said, SCOPES, accepted=IDS)},
    ),
)


@dataclass
class Heads:
    """A model that knows the tags of all tenants, and no scopes."""

    scores: Mapping[str, float]
    name: str = "heads"

    async def recall(self, query: Query) -> list[Mapping[str, float]]:
        return [self.scores for _ in query.texts]


def unit(seed: int) -> Vectors:
    vector = np.random.default_rng(seed).normal(size=D).astype(np.float32)
    return vector / np.linalg.norm(vector)


def name_of(tag: str) -> str:
    """Each with a distinct length."""
    return "n" * (1 + TAGS.index(tag))


@asynccontextmanager
async def opened(kind: str) -> AsyncIterator[Memory]:
    async def open_(name: str, carried: Carried) -> Store:
        match kind:
            case "exact":
                return ExactStore("r", D, carried)
            case "hnsw":
                return HnswStore("r", D, carried)
            case "embedded":
                return await EmbeddedStore.temporary("r", D, carried)
        store = ServerStore(
            Server(AsyncQdrantClient(":memory:"), "memory"), CollectionSpec("tenants", "r", name, D), carried
        )
        await store.begin("cluster", name)
        return store

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"FLOOR": 2, "MARGIN": 2, "PART": 1, "ROWS": 0}.items():
            patch.setattr(hnsw, name, value)
        memory = await memory_of(open_, carrying())
        yield memory
        await memory.close()


async def fill(memory: Memory, world: World) -> None:
    for store in memory.stores.values():
        await store.delete(list(await store.keys()))
    tags, contents = world
    await memory.tags.upsert(
        [
            Point(
                key,
                unit(TAGS.index(key)),
                {
                    "name": name_of(key),
                    "description": "",
                    "scopes": [*one.scopes],
                    "replaced_by": [*one.replaced_by],
                },
            )
            for key, one in tags.items()
        ]
    )
    await memory.exemplars.upsert(
        [
            Point(
                f"{key}/{one.source}",
                unit(100 + CONTENTS.index(key)),
                {
                    "title": "shared",
                    "text": key,
                    "accepted": [*one.accepted],
                    "rejected": [*one.rejected],
                    "scopes": [*one.scopes],
                },
            )
            for key, one in contents.items()
        ]
    )


def without_others(world: World, scopes: frozenset[str]) -> World:
    """The world as these scopes see it. A retired tag has no audience: it stays."""
    tags, contents = world
    return (
        {key: one for key, one in tags.items() if one.replaced_by or one.seen(scopes)},
        {key: one for key, one in contents.items() if one.seen(scopes)},
    )


async def found(
    memory: Memory, world: World, ids: Sequence[str], scopes: Sequence[frozenset[str]], ranker: Longest | None
) -> list[list[Candidate]]:
    await fill(memory, world)
    graph = GraphRecall(memory.tags, memory.exemplars, FITTED, RecallSettings(), named=9)
    literal, bm25 = LiteralRecall(memory.tags), Bm25Recall(memory)
    heads = Heads({tag: 0.9 - 0.1 * TAGS.index(tag) for tag in TAGS})
    text = " ".join(["shared", *map(name_of, TAGS)])
    stages = Stages(graph, [literal, bm25, heads], ranker)
    vectors = np.stack([unit(1000 + CONTENTS.index(key)) for key in ids])
    try:
        return await stages.recall(ids, [text] * len(ids), vectors, 5, scopes)
    finally:
        await literal.close()
        await bm25.close()


def shown(candidates: Sequence[Candidate]) -> list[tuple[object, ...]]:
    return [(one.id, round(one.score, 5), one.evidence) for one in candidates]


@pytest.mark.parametrize("kind", ["exact", "hnsw", "embedded", "server"])
async def test_two_tenants_never_see_each_other(kind: str) -> None:
    async def agree(memory: Memory, world: World, ids: Sequence[str], scopes: Sequence[frozenset[str]]) -> None:
        tags, contents = world
        for ranker in (None, Longest()):
            together = await found(memory, world, ids, scopes, ranker)
            for content, seen_by, candidates in zip(ids, scopes, together, strict=True):
                for one in candidates:
                    assert not tags[one.id].replaced_by
                    assert tags[one.id].seen(seen_by)
                    assert all(contents[near.id].seen(seen_by) for near in one.evidence.neighbours)
                alone = without_others(world, seen_by)
                [expected] = await found(memory, alone, [content], [seen_by], ranker)
                assert shown(candidates) == shown(expected)

    async with opened(kind) as memory:
        loop = asyncio.get_running_loop()

        @settings(max_examples=60 if kind == "exact" else 10, suppress_health_check=[HealthCheck.too_slow])
        @given(
            world=WORLDS,
            ids=st.lists(st.sampled_from(CONTENTS), min_size=1, max_size=3, unique=True),
            scopes=st.lists(SCOPES.map(frozenset[str]), min_size=3, max_size=3),
        )
        def check(world: World, ids: list[str], scopes: list[frozenset[str]]) -> None:
            asyncio.run_coroutine_threadsafe(agree(memory, world, ids, scopes[: len(ids)]), loop).result()

        await asyncio.to_thread(check)
