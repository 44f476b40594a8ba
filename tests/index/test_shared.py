"""A shared memory: the state that its writer records in the stores, and its meaning for a worker."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping

import pytest
from confluent_kafka.admin import AdminClient
from qdrant_client import AsyncQdrantClient

from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.errors import DependencyDown, MemoryLost, ReleaseMismatch
from tagbus.stream.index import bootstrap
from tagbus.stream.index import indexer as indexer_module
from tagbus.stream.index import shared as shared_module
from tagbus.stream.index.apply import Projection
from tagbus.stream.index.changes import MemoryChanges
from tagbus.stream.index.indexer import indexer
from tagbus.stream.index.shared import SharedMemory
from tagbus.stream.index.topics import Marks, MemoryTopics
from tagbus.stream.memory import Memory, Point
from tagbus.stream.memory.kinds import KINDS
from tagbus.stream.memory.shared import shared_stores
from tagbus.stream.memory.store import Payload
from tests.conftest import Broker
from tests.index.parts import Watched, encoder
from tests.index.sharing import (
    SECONDS,
    ended,
    opened,
    publish,
    retire,
    settings_at,
    states,
    until,
    watching,
    writing,
    written,
)
from tests.support import Layout, create_topics, produce

Topics = Callable[[Mapping[str, Layout]], dict[str, str]]
LAYOUT: Mapping[str, Layout] = {"tags": 2, "exemplars": 2}


async def test_a_workers_gate_opens_when_the_writer_has_caught_up(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient
) -> None:
    settings = settings_at(kafka, topics(LAYOUT))
    publish(kafka, settings.topics.tags, 50)
    async with watching(settings, qdrant) as (shared, _):
        await until(lambda: "not on the server" in shared.problem())
        assert not shared.ready.is_set()
        async with written(settings, qdrant):
            await shared.ready.wait()
            assert shared.problem() == ""
            assert sum(offset + 1 for offset in shared.taxonomy().values()) == 50
    assert await (await opened(qdrant)).tags.count() == 50


async def test_a_workers_taxonomy_is_what_was_written_and_its_listeners_know(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient
) -> None:
    """Given a slow listener, no version includes a tag before it is notified; it is notified of retired tags too."""
    settings = settings_at(kafka, topics({"tags": 1, "exemplars": 1}))
    publish(kafka, settings.topics.tags, 3)
    told: list[Mapping[str, Payload | None]] = []
    go = asyncio.Event()

    async def listen(changes: Mapping[str, Payload | None]) -> None:
        await go.wait()
        told.append(changes)

    changes = MemoryChanges(encoder().release, {"tags": [listen]})
    async with written(settings, qdrant), watching(settings, qdrant, changes) as (shared, _):
        await shared.ready.wait()
        assert (shared.taxonomy(), told) == ({"0": 2}, [])

        publish(kafka, settings.topics.tags, 1, first=3)
        retire(kafka, settings.topics.tags, "t0")
        await until(lambda: max(offset for _, offset in shared.applied()) == 5)
        assert shared.taxonomy() == {"0": 2}

        go.set()
        await until(lambda: shared.taxonomy() == {"0": 4})
    names = {key: payload and payload["name"] for one in told for key, payload in one.items()}
    assert names == {"t3": "subject 3", "t0": None}


async def test_who_listens_to_exemplars_is_told_of_them_and_the_taxonomy_does_not_wait(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient
) -> None:
    """Given a listener to exemplars only, it is notified of written and withdrawn ones; `tags` is not read for it."""
    settings = settings_at(kafka, topics({"tags": 1, "exemplars": 1}))
    publish(kafka, settings.topics.tags, 3)
    told: dict[str, Payload | None] = {}

    async def listen(changes: Mapping[str, Payload | None]) -> None:
        told.update(changes)

    changes = MemoryChanges(encoder().release, {"exemplars": [listen]})
    async with written(settings, qdrant), watching(settings, qdrant, changes) as (shared, _):
        await shared.ready.wait()
        assert shared.taxonomy() == {"0": 2}
        title = encode_record(Exemplar(id="c", title="bees", accepted=("t1",)))
        produce(kafka.address, settings.topics.exemplars, [(title.key, title.value, [])])
        await until(lambda: "c/people" in told)
        seen = told["c/people"]
        assert seen is not None
        assert seen["accepted"] == ["t1"]
        retire(kafka, settings.topics.exemplars, "c/people")
        await until(lambda: told["c/people"] is None)
        publish(kafka, settings.topics.tags, 1, first=3)
        await until(lambda: shared.taxonomy() == {"0": 3})
    assert told == {"c/people": None}


async def test_a_writer_goes_on_where_it_was_stopped(kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient) -> None:
    settings = settings_at(kafka, topics(LAYOUT))
    publish(kafka, settings.topics.tags, 10)
    watched = Watched()
    async with written(settings, qdrant, watched):
        pass
    publish(kafka, settings.topics.tags, 5, first=10)
    memory = await opened(qdrant)
    await memory.tags.delete(["t0"])

    async with written(settings, qdrant, watched):
        pass

    assert watched.texts == 15
    assert "t0" not in await memory.tags.keys(), "it read the whole topic again"


async def leftover(memory: Memory) -> None:
    """A point whose tag is on no topic any longer."""
    (vector,) = await encoder().encode(["retired long ago"])
    await memory.tags.upsert([Point("retired", vector, {"name": "retired long ago"})])


async def test_a_filling_that_was_interrupted_is_read_again_and_swept(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient
) -> None:
    """The tombstones of what it has stored may be gone by now."""
    settings = settings_at(kafka, topics(LAYOUT))
    publish(kafka, settings.topics.tags, 10)
    interrupted = await opened(qdrant)
    await indexer(settings, Projection(encoder(), interrupted), [interrupted])
    await leftover(interrupted)

    async with written(settings, qdrant):
        assert await (await opened(qdrant)).tags.keys() == {f"t{n}" for n in range(10)}
        assert len((await qdrant.get_collections()).collections) == len(KINDS)


async def test_after_longer_than_tombstones_are_kept_all_is_read_again_and_swept_and_nothing_is_encoded(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient
) -> None:
    names, watched = topics(LAYOUT), Watched()
    publish(kafka, names["tags"], 10)
    async with written(settings_at(kafka, names), qdrant):
        await leftover(await opened(qdrant))

    async with written(settings_at(kafka, names, tombstone_hours=1e-9), qdrant, watched):
        assert await (await opened(qdrant)).tags.keys() == {f"t{n}" for n in range(10)}
    assert watched.texts == 0


@pytest.mark.parametrize("lost", [["tags"], ["exemplars"], list(KINDS)], ids="-".join)
async def test_a_store_that_is_lost_ends_the_workers_and_is_filled_anew_before_any_starts(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient, lost: list[str]
) -> None:
    settings = settings_at(kafka, topics(LAYOUT))
    publish(kafka, settings.topics.tags, 10)
    async with written(settings, qdrant), watching(settings, qdrant) as (shared, task):
        await shared.ready.wait()
        stores = shared_stores(await opened(qdrant))
        for kind in lost:
            await stores[kind].drop()
        assert isinstance(await ended(task), MemoryLost)

    async with watching(settings, qdrant) as (shared, _):
        await until(lambda: "not on the server" in shared.problem())
        assert not shared.ready.is_set()
        async with written(settings, qdrant):
            await shared.ready.wait()
            assert await (await opened(qdrant)).tags.count() == 10


async def test_a_store_that_went_back_to_an_older_volume_is_brought_up_to_date(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient
) -> None:
    settings = settings_at(kafka, topics(LAYOUT))
    publish(kafka, settings.topics.tags, 10)
    async with written(settings, qdrant):
        pass
    older = {kind: state for kind, state in (await states(qdrant)).items() if state is not None}
    publish(kafka, settings.topics.tags, 5, first=10)
    async with written(settings, qdrant):
        pass
    memory = await opened(qdrant)
    await memory.tags.delete([f"t{n}" for n in range(10, 15)])
    for kind, store in shared_stores(memory).items():
        await store.begin(older[kind].owner, older[kind].topic)
        await store.record(older[kind])

    async with watching(settings, qdrant) as (shared, _):
        await until(lambda: "5 offsets left to apply" in shared.problem())
        async with written(settings, qdrant):
            await shared.ready.wait()
    assert await (await opened(qdrant)).tags.count() == 15


@pytest.mark.parametrize("count", [3, 80])
async def test_a_memory_of_topics_that_were_recreated_is_built_anew_beside_the_old_one(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient, count: int
) -> None:
    """Given a memory of 50 tags, and a new topic that has fewer records, or includes the offsets of the old one."""
    names = topics(LAYOUT)
    settings = settings_at(kafka, names)
    publish(kafka, settings.topics.tags, 50)
    async with written(settings, qdrant):
        pass
    admin = AdminClient({"bootstrap.servers": kafka.address})
    for future in admin.delete_topics([names["tags"]]).values():
        future.result(SECONDS)
    create_topics(kafka.address, {names["tags"]: 2})
    publish(kafka, settings.topics.tags, count, first=100)
    expected = "built from another topic" if count < 50 else "offsets left to apply"

    async with watching(settings, qdrant) as (shared, _):
        await until(lambda: expected in shared.problem())
        assert not shared.ready.is_set()
        async with written(settings, qdrant):
            await shared.ready.wait()
            assert await (await opened(qdrant)).tags.keys() == {f"t{n}" for n in range(100, 100 + count)}


async def test_a_filling_that_was_interrupted_under_another_name_of_a_topic_is_begun_anew(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient
) -> None:
    """Nothing was recorded of it yet, so no offset tells that its points are of another topic."""
    names, other = topics(LAYOUT), topics({"exemplars": 2})["exemplars"]
    await writing(settings_at(kafka, names), qdrant)

    settings = settings_at(kafka, {**names, "exemplars": other})
    async with written(settings, qdrant), watching(settings, qdrant) as (shared, _):
        await shared.ready.wait()
        state = (await states(qdrant))["exemplars"]
        assert state is not None
        assert state.topic == other


async def test_a_server_that_is_down_as_a_memory_is_reset_is_waited_for(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = topics(LAYOUT)
    async with written(settings_at(kafka, names), qdrant):
        pass
    update, failures = qdrant.update_collection, iter(range(2))

    async def down(name: str, *, metadata: dict[str, object]) -> bool:
        if next(failures, None) is not None:
            raise DependencyDown("Qdrant does not answer")
        return await update(name, metadata=metadata)

    monkeypatch.setattr(qdrant, "update_collection", down)
    async with written(settings_at(kafka, names, tombstone_hours=1e-9), qdrant):
        assert next(failures, None) is None


async def test_another_installations_memory_is_neither_read_nor_written(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient
) -> None:
    settings, other = settings_at(kafka, topics(LAYOUT)), settings_at(kafka, topics(LAYOUT))
    async with written(settings, qdrant):
        pass

    with pytest.raises(ReleaseMismatch, match=r"belongs to cluster .*TAGBUS_MEMORY__NAMESPACE"):
        await writing(other, qdrant)
    async with watching(other, qdrant) as (_, task):
        assert "TAGBUS_MEMORY__NAMESPACE" in str(await ended(task))


async def test_a_memory_that_nobody_keeps_up_to_date_grows_old_and_its_workers_are_not_ready(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_at(kafka, topics(LAYOUT))
    publish(kafka, settings.topics.tags, 10)
    async with watching(settings, qdrant) as (shared, _):
        async with written(settings, qdrant):
            await shared.ready.wait()
            assert shared.age() < SECONDS
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 301)
        assert shared.age() >= 300
        assert "`tagbus index` does not run" in shared.problem()


async def test_a_writer_says_that_the_memory_is_current_though_nothing_comes(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "TELL_SECONDS", 0.0)
    monkeypatch.setattr(indexer_module, "CURRENT_SECONDS", 0.0)
    settings = settings_at(kafka, topics(LAYOUT))
    async with written(settings, qdrant), watching(settings, qdrant) as (shared, _):
        await shared.ready.wait()
        first = (await states(qdrant))["tags"]
        assert first is not None
        later = first
        while later.current <= first.current + 1:
            later = (await states(qdrant))["tags"] or later
            await asyncio.sleep(0.02)
        assert later.offsets == first.offsets


async def test_topics_are_listed_once_however_often_the_stores_are_looked_at(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_at(kafka, topics(LAYOUT))
    publish(kafka, settings.topics.tags, 5)
    asked: Counter[str] = Counter()

    class Counted(MemoryTopics):
        def marks(self) -> Marks:
            asked["topics"] += 1
            return super().marks()

    look = SharedMemory._look

    async def counted(shared: SharedMemory, listed: MemoryTopics) -> None:
        asked["stores"] += 1
        await look(shared, listed)

    monkeypatch.setattr(shared_module, "MemoryTopics", Counted)
    monkeypatch.setattr(shared_module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(SharedMemory, "_look", counted)
    async with watching(settings, qdrant) as (shared, _):
        await until(lambda: asked["stores"] > 10)
        async with written(settings, qdrant):
            await shared.ready.wait()
            so_far = asked["stores"]
            await until(lambda: asked["stores"] > so_far + 10)
    assert asked["topics"] == 1
