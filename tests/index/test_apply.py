"""Records of the memory topics become points, or leave."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from tagbus.stream.config import MemorySettings
from tagbus.stream.contract.codec import Record
from tagbus.stream.contract.events import Exemplar, Knowledge, Tag
from tagbus.stream.errors import DependencyDown
from tagbus.stream.index.apply import MemoryRecord, Projection
from tagbus.stream.memory import Carried, Memory, memory_of, open_memory
from tagbus.stream.memory.qdrant.client import Server
from tagbus.stream.memory.qdrant.collections import CollectionSpec
from tagbus.stream.memory.qdrant.server import ServerStore
from tagbus.stream.memory.store import Payload
from tests.index.parts import Watched, encoder, memory, record, tombstone
from tests.memory.listing import listed

CATS = Tag(id="t1", name="cats")
DOGS = Tag(id="t2", name="dogs", aliases=("hounds",), description="Canis familiaris")
TITLE = Exemplar(id="c1", text="how to keep a cat", accepted=("t1",), rejected=("t2",))


async def test_tags_and_exemplars_are_found_where_they_belong() -> None:
    store = memory()

    kept = await Projection(Watched(), store).apply([record(CATS), record(DOGS), record(TITLE)])

    assert kept == {"tags": {"t1", "t2"}, "exemplars": {"c1/people"}, "knowledge": set()}
    assert (await store.tags.fetch(["t1"]))["t1"]["name"] == "cats"
    payload = (await store.exemplars.fetch(["c1/people"]))["c1/people"]
    assert (payload["id"], payload["source"], payload["accepted"], payload["rejected"]) == (
        "c1",
        "people",
        ["t1"],
        ["t2"],
    )


async def test_a_second_encoders_memory_is_filled_before_and_emptied_with_it() -> None:
    """What stands in memory stands beside it too, also where the second encoder's encoder was away in between."""
    store, beside, away = memory(), memory(), Watched(failures=1)
    projection = Projection(Watched(), store, [Projection(away, beside)])

    with pytest.raises(DependencyDown):
        await projection.apply([record(TITLE)])
    assert await store.exemplars.count() == 0
    await projection.apply([record(CATS), record(TITLE)])
    assert await beside.exemplars.keys() == await store.exemplars.keys() == {"c1/people"}

    await projection.sweep({"tags": {"t1"}, "exemplars": set()})
    assert await beside.exemplars.keys() == await store.exemplars.keys() == set()
    assert await beside.tags.keys() == {"t1"}


async def test_listeners_know_of_each_change_of_a_tag_once_memory_shows_it() -> None:
    store = memory()
    told: list[Mapping[str, Payload | None]] = []

    async def listen(changes: Mapping[str, Payload | None]) -> None:
        held = await store.tags.fetch(list(changes))
        assert {key: held.get(key) for key in changes} == changes
        told.append(changes)

    projection = Projection(Watched(), store, listeners={"tags": [listen]})
    await projection.apply([record(CATS), record(DOGS), record(TITLE)])
    await projection.apply([record(Tag(id="t1", name="felines")), tombstone("tags", "t2")])
    await projection.apply([record(TITLE)])
    await projection.sweep({"tags": set(), "exemplars": set()})

    names = [{key: payload and payload["name"] for key, payload in one.items()} for one in told]
    assert names == [{"t1": "cats", "t2": "dogs"}, {"t2": None}, {"t1": "felines"}, {"t1": None}]


async def test_a_change_that_the_store_took_without_an_answer_is_told_when_it_is_applied_again() -> None:
    """Given a store that keeps a tag but fails before confirming it, the next attempt finds it and notifies of it."""
    store = memory()
    told: list[str] = []

    async def listen(changes: Mapping[str, Payload | None]) -> None:
        told.extend(changes)

    projection = Projection(Watched(), store, listeners={"tags": [listen]})
    await Projection(Watched(), store).apply([record(CATS)])
    await projection.apply([record(CATS)])

    assert told == ["t1"]


async def test_of_records_with_one_key_the_last_counts() -> None:
    store = memory()
    projection = Projection(Watched(), store)

    await projection.apply([record(CATS), tombstone("tags", "t1"), record(Tag(id="t1", name="felines"))])
    await projection.apply([record(DOGS), tombstone("tags", "t2")])

    assert (await store.tags.fetch(["t1", "t2"])).keys() == {"t1"}
    assert (await store.tags.fetch(["t1"]))["t1"]["name"] == "felines"


async def test_people_and_machine_never_erase_each_other() -> None:
    store = memory()
    projection = Projection(Watched(), store)
    machine = TITLE.model_copy(update={"source": "machine"})

    await projection.apply([record(TITLE), record(machine)])
    await projection.apply([tombstone("exemplars", "c1/machine")])

    assert await store.exemplars.keys() == {"c1/people"}


async def test_what_is_there_already_is_not_encoded_again() -> None:
    watched, store = Watched(), memory()
    await Projection(watched, store).apply([record(CATS), record(TITLE)])

    await Projection(watched, store).apply([record(CATS), record(TITLE), record(DOGS)])

    assert watched.texts == 3


async def test_a_changed_decision_is_applied_though_the_text_is_the_same() -> None:
    store = memory()
    projection = Projection(Watched(), store)
    await projection.apply([record(TITLE)])

    await projection.apply([record(TITLE.model_copy(update={"accepted": ("t2",)}))])

    assert (await store.exemplars.fetch(["c1/people"]))["c1/people"]["accepted"] == ["t2"]


@pytest.mark.parametrize("value", [b"\xff\xfe", b"{", b'{"id": "t1"}', b'{"id": 1, "name": "x"}'])
async def test_a_record_that_is_no_event_is_skipped_and_what_stood_there_stays(value: bytes) -> None:
    store = memory()
    projection = Projection(Watched(), store)
    await projection.apply([record(CATS)])

    kept = await projection.apply([MemoryRecord("tags", Record(b"t1", value), "tags:0:9"), record(DOGS)])

    assert kept["tags"] == {"t1", "t2"}
    assert (await store.tags.fetch(["t1"]))["t1"]["name"] == "cats"


async def test_a_sweep_deletes_what_the_topics_no_longer_hold() -> None:
    store = memory()
    projection = Projection(Watched(), store)
    await projection.apply([record(CATS), record(DOGS), record(TITLE)])

    await projection.sweep({"tags": {"t2"}, "exemplars": {"c1/people"}})

    assert await store.tags.keys() == {"t2"}
    assert await store.exemplars.count() == 1


async def test_an_encoder_that_is_down_leaves_memory_as_it_was() -> None:
    store = memory()

    with pytest.raises(DependencyDown):
        await Projection(Watched(failures=1), store).apply([record(CATS)])

    assert await store.tags.count() == 0


async def test_a_changed_payload_is_kept_and_its_text_is_not_encoded_again() -> None:
    """A decision, a scope, a parent: whatever is not in the text."""
    watched, store = Watched(), memory()
    projection = Projection(watched, store)
    await projection.apply([record(CATS), record(TITLE)])

    await projection.apply(
        [
            record(CATS.model_copy(update={"parents": ("t2",), "scopes": ("zoo",)})),
            record(TITLE.model_copy(update={"accepted": ("t2",), "scopes": ("zoo",)})),
        ]
    )

    assert watched.texts == 2
    assert (await store.tags.fetch(["t1"]))["t1"]["parents"] == ["t2"]
    assert (await store.exemplars.fetch(["c1/people"]))["c1/people"]["scopes"] == ["zoo"]


@pytest.mark.parametrize("kind", ["exact", "hnsw", "embedded", "server"])
async def test_a_kept_store_of_another_form_gets_this_ones_and_is_not_encoded_again(kind: str, tmp_path: Path) -> None:
    """Given points as they were kept before titles, descriptions and scopes were, when their records come again, then
    payloads are as they would be now, and what a search finds carries its tags."""
    store = await opened(kind, tmp_path)
    first = Watched()
    await Projection(first, store).apply([record(CATS), record(DOGS), record(TITLE)])
    for one in store.stores.values():
        kept = await one.fetch(sorted(await one.keys()))
        old = {key: {name: payload[name] for name in OLD & payload.keys()} for key, payload in kept.items()}
        await one.set_payloads(old)
    again = Watched()

    await Projection(again, store).apply([record(CATS), record(DOGS), record(TITLE)])

    assert (first.texts, again.texts) == (3, 0)
    fresh = memory()
    await Projection(Watched(), fresh).apply([record(CATS), record(DOGS), record(TITLE)])
    for name, one in store.stores.items():
        keys = sorted(await one.keys())
        assert await one.fetch(keys) == await fresh.stores[name].fetch(keys)
    vectors = await Watched().encode(["how to keep a cat"])
    [hits] = await listed(store.exemplars, vectors, 1, [frozenset()])
    assert (hits[0].tags, hits[0].similarity) == (["t1"], pytest.approx(1, abs=1e-5))
    await store.close()


OLD = {"name", "aliases", "parents", "id", "source", "accepted", "rejected", "text_hash"}


async def opened(kind: str, folder: Path) -> Memory:
    release = encoder().release
    if kind == "server":
        server = Server(AsyncQdrantClient(":memory:"), "memory")

        async def store(name: str, carried: Carried) -> ServerStore:
            made = ServerStore(server, CollectionSpec("tagbus", release.name, name, release.dimension), carried)
            await made.begin("cluster", name)
            return made

        return await memory_of(store)
    settings = MemorySettings.model_validate({"kind": kind, "path": folder})
    return await open_memory(settings, release.name, release.dimension)


async def test_knowledge_is_kept_and_withdrawn() -> None:
    store = memory()
    projection = Projection(Watched(), store)
    rule = Knowledge(id="k1", kind="rule", title="Cats", text="Cats are no dogs.", scopes=("zoo",))

    kept = await projection.apply([record(rule)])

    assert kept["knowledge"] == {"k1"}
    knowledge = store.stores["knowledge"]
    vectors = await encoder().encode(["Cats are no dogs."])
    [theirs, others] = await listed(knowledge, np.repeat(vectors, 2, axis=0), 1, [frozenset({"zoo"}), frozenset()])
    assert [hit.payload["text"] for hit in theirs] == ["Cats are no dogs."]
    assert others == []
    await projection.apply([tombstone("knowledge", "k1")])
    assert await knowledge.count() == 0
