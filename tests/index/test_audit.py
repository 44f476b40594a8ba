"""Memory is compared with its topics and repaired, for stores that outlive their process."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient
from qdrant_client import models as qdrant

from tagbus.stream.config import MemorySettings, Settings
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.index import audit as module
from tagbus.stream.index.apply import Projection
from tagbus.stream.index.audit import Finding, audit
from tagbus.stream.index.bootstrap import Follower
from tagbus.stream.memory import Memory, Point, open_memory
from tagbus.stream.memory.store import ListedStore, Source
from tests.conftest import Broker
from tests.index.parts import encoder, running
from tests.index.sharing import opened, publish, retire, settings_at, until, written
from tests.support import Layout, produce

Topics = Callable[[Mapping[str, Layout]], dict[str, str]]
Filled = Callable[[Settings, Path], AbstractAsyncContextManager[Memory]]

KEPT = {f"t{n}" for n in range(1, 12)}


@asynccontextmanager
async def on_server(settings: Settings, folder: Path) -> AsyncIterator[Memory]:
    client = AsyncQdrantClient(":memory:")
    async with written(settings, client):
        pass
    yield await opened(client)


@asynccontextmanager
async def embedded(settings: Settings, folder: Path) -> AsyncIterator[Memory]:
    release = encoder().release
    memory = await open_memory(MemorySettings(kind="embedded", path=folder), release.name, release.dimension)
    try:
        follower = Follower(settings, Projection(encoder(), memory))
        async with running(follower):
            await until(follower.ready.is_set)
        yield memory
    finally:
        await memory.close()


FILLED: Mapping[str, Filled] = {"server-in-memory": on_server, "embedded": embedded}


async def found(settings: Settings, memory: Memory, kind: str = "tags", *, repair: bool = False) -> list[Finding]:
    store = memory.stores[kind]
    assert isinstance(store, ListedStore)
    projection = Projection(encoder(), memory) if repair else None
    one = audit(settings, kind, store, encoder().release)
    return sorted([finding async for finding in one.findings(projection)], key=lambda finding: finding.key)


async def put(memory: Memory, key: str, **payload: str) -> None:
    (vector,) = await encoder().encode([key])
    await memory.tags.upsert([Point(key, vector, payload)])


@pytest.fixture(params=list(FILLED))
def filled(request: pytest.FixtureRequest) -> Filled:
    return FILLED[request.param]


async def test_each_fault_is_found_and_put_right(
    kafka: Broker, topics: Topics, filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 5)
    settings = settings_at(kafka, topics({"tags": 2, "exemplars": 1}))
    publish(kafka, settings.topics.tags, 12)
    publish(kafka, settings.topics.tags, 12)
    retire(kafka, settings.topics.tags, "t0")
    async with filled(settings, tmp_path) as memory:
        assert await found(settings, memory) == []
        right = await memory.tags.fetch(sorted(KEPT))

        await memory.tags.delete(["t1"])
        await memory.tags.set_payloads({"t2": {**right["t2"], "name": "of another hand"}})
        await put(memory, "t0", name="retired and back")
        await put(memory, "strange", name="of no topic")

        faults = {finding.key: finding.fault for finding in await found(settings, memory)}
        assert faults == {"t0": "retired", "t1": "missing", "t2": "stale", "strange": "foreign"}
        assert {one.key for one in await found(settings, memory, repair=True)} == set(faults)
        assert await found(settings, memory) == []
        assert await memory.tags.fetch([*sorted(KEPT), "t0", "strange"]) == right


async def test_a_kind_without_a_topic_has_only_foreign_points(
    kafka: Broker, topics: Topics, filled: Filled, tmp_path: Path
) -> None:
    settings = settings_at(kafka, topics({"tags": 1, "exemplars": 1}))
    settings = settings.model_copy(update={"topics": settings.topics.model_copy(update={"knowledge": "no-such-topic"})})
    exemplar = encode_record(Exemplar(id="c", source="people", text="bees", accepted=("t1",)))
    produce(kafka.address, settings.topics.exemplars, [(exemplar.key, exemplar.value, [])])
    async with filled(settings, tmp_path) as memory:
        assert await found(settings, memory, "knowledge") == []
        assert await found(settings, memory, "exemplars") == []
        await memory.exemplars.delete(["c/people"])
        assert [one.fault for one in await found(settings, memory, "exemplars")] == ["missing"]


async def test_an_invalid_record_leaves_its_point_as_it_was(
    kafka: Broker, topics: Topics, filled: Filled, tmp_path: Path
) -> None:
    settings = settings_at(kafka, topics({"tags": 1, "exemplars": 1}))
    publish(kafka, settings.topics.tags, 1)
    produce(kafka.address, settings.topics.tags, [(b"t0", b"no JSON", [])])
    async with filled(settings, tmp_path) as memory:
        assert await found(settings, memory) == []


async def test_points_that_tagbus_did_not_write_are_foreign_and_go(kafka: Broker, topics: Topics) -> None:
    settings = settings_at(kafka, topics({"tags": 1, "exemplars": 1}))
    publish(kafka, settings.topics.tags, 2)
    client = AsyncQdrantClient(":memory:")
    async with written(settings, client):
        pass
    memory = await opened(client)
    vector = [1.0] + [0.0] * (encoder().release.dimension - 1)
    by_hand = [
        qdrant.PointStruct(id=7, vector=vector, payload={"by": "hand"}),
        qdrant.PointStruct(id=8, vector=vector, payload={"key": "t0", "payload": {}}),
    ]
    await client.upsert((await client.get_aliases()).aliases[0].collection_name, by_hand)
    kinds = [kind for kind in ("tags", "exemplars", "knowledge") if await found(settings, memory, kind)]
    (kind,) = kinds
    assert [(one.fault, one.key) for one in await found(settings, memory, kind, repair=True)] == [
        ("foreign", "7"),
        ("foreign", "8"),
    ]
    assert await found(settings, memory, kind) == []
    assert await memory.tags.keys() == {"t0", "t1"}


async def test_what_a_writer_adds_meanwhile_is_no_fault(kafka: Broker, topics: Topics) -> None:
    settings = settings_at(kafka, topics({"tags": 1, "exemplars": 1}))
    publish(kafka, settings.topics.tags, 2)
    client = AsyncQdrantClient(":memory:")
    async with written(settings, client):
        pass
    memory = await opened(client)
    (point,) = (await memory.tags.fetch(["t0"])).values()
    later = Source(0, 99, 0).as_json()
    (vector,) = await encoder().encode(["later"])
    new = Point("new", vector, {**point, "record": later})
    await memory.tags.upsert([new, replace(new, key="t1")])
    assert await found(settings, memory) == []
    assert await found(settings, memory, repair=True) == []
    assert await memory.tags.keys() == {"t0", "t1", "new"}
