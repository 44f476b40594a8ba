"""An older record never overtakes a newer one, whichever process writes it and in whatever order.

The client's in-memory mode applies conditions as the server does, but has one shard and one order: the same order on
all replicas is requested of the server (`ordering`), and the request is asserted.
"""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import AsyncQdrantClient
from qdrant_client import models as qdrant

from tagbus.stream.errors import DependencyDown
from tagbus.stream.memory import Point
from tagbus.stream.memory.kinds import HASH
from tagbus.stream.memory.qdrant.client import Server
from tagbus.stream.memory.qdrant.server import ServerStore
from tagbus.stream.memory.store import RECORD, Payload, Source
from tests.memory.listing import listed
from tests.memory.qdrant.parts import reader, spec, writer

X, Y = np.array([1, 0], np.float32), np.array([0, 1], np.float32)


def at(offset: int, partition: int = 0, time: int = 0) -> Source:
    return Source(partition, offset, time)


def payload(source: Source, **more: str) -> Payload:
    return {RECORD: source.as_json(), **more}


def point(key: str, source: Source, vector: np.ndarray = X, **more: str) -> Point:
    return Point(key, vector, payload(source, **more))


async def offsets(store: ServerStore, *keys: str) -> dict[str, int]:
    """The offset of the record that each point was made from."""
    found = {key: Source.of(payload) for key, payload in (await store.fetch(keys)).items()}
    return {key: source.offset for key, source in found.items() if source is not None}


async def test_an_older_record_replaces_no_newer_one(client: AsyncQdrantClient) -> None:
    one, other = await writer(client), await writer(client)
    await one.upsert([point("a", at(7), X), point("b", at(3), X)])

    await other.upsert([point("a", at(5), Y), point("b", at(4), Y), point("c", at(6), Y)])

    assert await offsets(one, "a", "b", "c") == {"a": 7, "b": 4, "c": 6}
    hits = await listed(one, np.stack([X, Y]), 1)
    assert [hit[0].key for hit in hits] == ["a", "b"]


async def test_the_same_record_may_be_written_again(client: AsyncQdrantClient) -> None:
    store = await writer(client)
    await store.upsert([point("a", at(7), X, name="damaged")])
    await store.upsert([point("a", at(7), Y, name="right")])
    assert (await store.fetch(["a"]))["a"]["name"] == "right"


async def test_an_older_record_does_not_bring_back_a_retired_point(client: AsyncQdrantClient) -> None:
    one, other = await writer(client), await writer(client)
    await one.upsert([point("a", at(5))])
    await one.retire({"a": at(9), "never there": at(8)})

    await other.upsert([point("a", at(7)), point("never there", at(4))])
    assert await one.keys() == set()
    assert await one.count() == 0
    assert await one.fetch(["a", "never there"]) == {}
    assert await listed(one, X[None], 5) == [[]]
    await other.set_payloads({})

    await other.upsert([point("a", at(10))])
    assert await offsets(one, "a") == {"a": 10}


async def test_an_older_tombstone_retires_no_newer_record(client: AsyncQdrantClient) -> None:
    store = await writer(client)
    await store.upsert([point("a", at(9))])
    await store.retire({"a": at(5)})
    assert await offsets(store, "a") == {"a": 9}


async def test_the_remains_of_a_retired_point_have_no_text_and_are_forgotten_in_time(client: AsyncQdrantClient) -> None:
    store = await writer(client)
    await store.upsert([point("secret/people", at(5), title="marmalade")])
    await store.retire({"secret/people": at(9)})
    (left,), _ = await client.scroll(store.collection, with_payload=True, with_vectors=True)
    assert "marmalade" not in str(left)
    assert "secret" not in str(left)
    assert not left.vector

    await store.forget(0)
    assert (await client.count(store.collection)).count == 1
    await store.forget(1e12)
    assert (await client.count(store.collection)).count == 0


async def test_a_payload_is_written_with_the_vector_of_its_text(client: AsyncQdrantClient) -> None:
    store = await writer(client)
    await store.upsert([point("a", at(5), Y, name="old", **{HASH: "t"})])
    await store.set_payloads({"a": payload(at(6), name="new", **{HASH: "t"})})
    assert (await store.fetch(["a"]))["a"]["name"] == "new"
    await store.set_payloads({"a": payload(at(4), name="older", **{HASH: "t"})})
    assert (await store.fetch(["a"]))["a"]["name"] == "new"
    assert [hit[0].similarity for hit in await listed(store, Y[None], 1)] == [1]


@pytest.mark.parametrize("change", ["another text", "retired"])
async def test_a_payload_whose_text_was_changed_meanwhile_is_applied_again(
    client: AsyncQdrantClient, change: str
) -> None:
    store, other = await writer(client), await writer(client)
    await store.upsert([point("a", at(3), X, **{HASH: "t"})])
    if change == "retired":
        await other.retire({"a": at(5)})
    else:
        await other.upsert([point("a", at(5), Y, **{HASH: "u"})])
    with pytest.raises(DependencyDown, match=r"'a' in tagbus-r1-tags.* was changed by another process"):
        await store.set_payloads({"a": payload(at(6), **{HASH: "t"})})


async def test_after_partitions_are_added_the_younger_record_wins(client: AsyncQdrantClient) -> None:
    for order in itertools.permutations([at(90, 0, time=1_000), at(2, 7, time=2_000)]):
        store = ServerStore(Server(AsyncQdrantClient(":memory:"), "memory"), spec())
        await store.begin("cluster", "tags")
        for source in order:
            await store.upsert([point("a", source)])
        assert await offsets(store, "a") == {"a": 2}


async def test_a_sweep_leaves_points_of_unread_records(client: AsyncQdrantClient) -> None:
    store = await writer(client)
    await store.upsert(
        [point("gone", at(3)), point("later", at(10)), point("elsewhere", at(1, 1)), Point("none", X, {})]
    )
    await store.sweep(["gone", "later", "elsewhere", "none"], {0: 10, 1: 1})
    assert await store.keys() == {"later", "elsewhere"}


async def test_writes_are_waited_for_and_in_one_order_on_all_replicas(
    client: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, object]] = []
    for name in ("upsert", "delete"):
        call = getattr(client, name)

        async def kept(*positional: Any, call: Any = call, **more: Any) -> Any:
            asked.append((more["wait"], more["ordering"]))
            return await call(*positional, **more)

        monkeypatch.setattr(client, name, kept)
    store = await writer(client)
    await store.upsert([point("a", at(1), **{HASH: "t"})])
    await store.set_payloads({"a": payload(at(2), **{HASH: "t"})})
    await store.retire({"a": at(3)})
    await store.sweep(["a"], {0: 4})
    await store.delete(["a"])
    await store.forget(0)
    assert asked == [(True, qdrant.WriteOrdering.STRONG)] * 6


async def test_points_without_a_record_replace_unconditionally(client: AsyncQdrantClient) -> None:
    store = await writer(client)
    await store.upsert([point("a", at(9))])
    await store.upsert([Point("a", Y, {"name": "by hand"})])
    assert (await store.fetch(["a"]))["a"] == {"name": "by hand"}


RECORDS = st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(records=RECORDS, data=st.data())
async def test_in_any_order_of_records_the_last_of_each_key_wins(
    records: list[tuple[str, bool]], data: st.DataObject
) -> None:
    """Two writers, each of which may repeat any part of the topic, as after a kill."""
    client = AsyncQdrantClient(":memory:")
    store = await writer(client)
    numbers = range(len(records))
    repeated = data.draw(st.lists(st.sampled_from(numbers), max_size=12))
    for offset in data.draw(st.permutations([*numbers, *repeated])):
        key, kept = records[offset]
        if kept:
            await store.upsert([point(key, at(offset))])
        else:
            await store.retire({key: at(offset)})
    last = {key: (offset, kept) for offset, (key, kept) in enumerate(records)}
    assert await offsets(store, "a", "b", "c") == {key: offset for key, (offset, kept) in last.items() if kept}
    assert await reader(client).state() is None
