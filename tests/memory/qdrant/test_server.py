"""The store on a Qdrant server: its requests and its points."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient
from qdrant_client import models as qdrant

from tagbus.stream.errors import Fatal, Overloaded
from tagbus.stream.memory import Point, Vectors
from tagbus.stream.memory.qdrant import server as module
from tagbus.stream.memory.qdrant.client import Server
from tagbus.stream.memory.qdrant.server import FLOAT_BYTES, ServerStore
from tagbus.stream.memory.store import Source
from tests.memory.listing import listed
from tests.memory.qdrant.parts import OWNER, spec, writer

Make = Callable[..., Point]
Unit = Callable[..., Vectors]


async def test_a_foreign_point_is_named(client: AsyncQdrantClient, unit: Unit) -> None:
    store = await writer(client)
    await client.upsert(store.collection, [qdrant.PointStruct(id=1, vector=[1, 0], payload={"by": "hand"})])
    with pytest.raises(Fatal, match="a point that tagbus did not write"):
        await listed(store, unit([(1, 0)]), 1)


async def test_large_batches_go_in_several_requests(
    client: AsyncQdrantClient, point: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDS", 7)
    monkeypatch.setattr(module, "SCROLL", 7)
    sizes: list[int] = []
    upsert = client.upsert

    async def counted(
        collection: str, points: Sequence[qdrant.PointStruct], *, update_filter: qdrant.Filter, **more: Any
    ) -> qdrant.UpdateResult:
        asked = qdrant.PointsList(points=list(points), update_filter=update_filter)
        sizes.append(len(asked.model_dump_json(exclude_none=True)))
        return await upsert(collection, points, update_filter=update_filter, **more)

    monkeypatch.setattr(client, "upsert", counted)
    store = ServerStore(Server(client, "memory", request_bytes=2_000), spec())
    await store.begin(OWNER, "tags")
    record = {"record": Source(2**20, 2**50, 2**50).as_json()}
    await store.upsert([point(f"k{n}", (1, n), text="x" * n, **record) for n in range(50)])
    assert len(sizes) > 5
    assert max(sizes) <= 2_000
    keys = {f"k{n}" for n in range(50)}
    assert await store.keys() == keys
    assert len(await store.fetch(sorted(keys))) == 50
    await store.delete(sorted(keys))
    assert await store.count() == 0


async def test_a_search_goes_in_requests_of_a_bounded_size(
    client: AsyncQdrantClient, unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    query = client.query_batch_points

    async def counted(collection: str, requests: list[qdrant.QueryRequest], *, timeout: int) -> object:
        sizes.append(len(qdrant.QueryRequestBatch(searches=requests).model_dump_json()))
        return await query(collection, requests, timeout=timeout)

    monkeypatch.setattr(client, "query_batch_points", counted)
    store = ServerStore(Server(client, "memory", request_bytes=20_000), spec(dimension=384))
    await store.begin(OWNER, "tags")
    queries = unit([[(row * 31 + column) % 17 + 0.1 for column in range(384)] for row in range(20)])
    await store.search(queries, 5, [frozenset({"a tenant", "another"})] * 20)
    assert len(sizes) > 5
    assert max(sizes) <= 20_000


def test_no_float_takes_more_bytes_than_are_reckoned_with(unit: Unit) -> None:
    rows = unit([[(row * 37 + column) % 101 / 97 - 0.5 for column in range(384)] for row in range(200)])
    longest = max(len(qdrant.QueryRequest(query=row.tolist()).model_dump_json(include={"query"})) for row in rows)
    assert longest <= FLOAT_BYTES * 384 + 12


async def test_a_search_that_times_out_is_asked_again_in_halves(
    client: AsyncQdrantClient, point: Make, unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths: list[int] = []
    query = client.query_batch_points

    async def slow(collection: str, requests: list[qdrant.QueryRequest], *, timeout: int) -> object:
        widths.append(len(requests))
        if len(requests) > 4:
            raise Overloaded("did not answer in time")
        return await query(collection, requests, timeout=timeout)

    monkeypatch.setattr(client, "query_batch_points", slow)
    store = await writer(client)
    await store.upsert([point(f"k{n}", (1, n)) for n in range(3)])
    hits = await listed(store, unit([(1, n) for n in range(16)]), 1)
    assert [hit[0].key for hit in hits[:2]] == ["k0", "k1"]
    assert widths[0] == 16
    assert all(width < 16 for width in widths[1:])
