"""A taxonomy that is emptied by mistake: the memory is held and says why, no tag is lost, a fix lifts the hold."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from qdrant_client import AsyncQdrantClient

from tagbus.stream import telemetry
from tagbus.stream.config import MemorySettings, Settings
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.index import guard
from tagbus.stream.index.apply import Projection
from tagbus.stream.index.bootstrap import Follower
from tagbus.stream.memory import Memory, open_memory
from tests.conftest import Broker
from tests.index.parts import encoder, memory, running
from tests.index.sharing import SECONDS, opened, publish, settings_at, until, writing, written
from tests.support import Layout, create_topics, produce

Topics = Callable[[Mapping[str, Layout]], dict[str, str]]
LAYOUT: Mapping[str, Layout] = {"tags": 2, "exemplars": 1}
EVERY = {f"t{n}" for n in range(10)}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten tags are many."""
    monkeypatch.setattr(guard, "FEWEST", 10)
    telemetry.MEMORY_HELD.set(0)


def is_held() -> bool:
    return telemetry.MEMORY_HELD._value.get() == 1


def retire(kafka: Broker, topic: str, count: int, first: int = 0) -> None:
    produce(kafka.address, topic, [(f"t{n}".encode(), None, []) for n in range(first, first + count)])


@asynccontextmanager
async def following(settings: Settings, held: Memory) -> AsyncIterator[Follower]:
    async with running(Follower(settings, Projection(encoder(), held))) as follower, asyncio.timeout(SECONDS):
        await follower.ready.wait()
        yield follower


async def test_all_tags_that_are_retired_at_once_stay_until_they_are_published_again(
    kafka: Broker, topics: Topics
) -> None:
    settings, held = settings_at(kafka, topics(LAYOUT)), memory()
    publish(kafka, settings.topics.tags, 10)
    async with following(settings, held) as follower:
        version = follower.taxonomy()
        retire(kafka, settings.topics.tags, 10)
        await until(lambda: bool(follower.held))
        assert "10 of 10 tags would be retired within a minute" in follower.held
        assert "TAGBUS_MEMORY__RETIRE_SHARE=1" in follower.held
        assert is_held()
        exemplar = encode_record(Exemplar(id="c", text="bees", accepted=("t1",)))
        produce(kafka.address, settings.topics.exemplars, [(exemplar.key, exemplar.value, [])])
        assert await held.tags.keys() == EVERY
        assert follower.taxonomy() == version

        publish(kafka, settings.topics.tags, 9)
        await until(lambda: not follower.held)
        assert not is_held()
        while await held.tags.keys() != EVERY - {"t9"}:
            await asyncio.sleep(0.02)
        while await held.exemplars.count() != 1:
            await asyncio.sleep(0.02)


async def test_a_few_are_retired_at_once(kafka: Broker, topics: Topics) -> None:
    settings, held = settings_at(kafka, topics(LAYOUT)), memory()
    publish(kafka, settings.topics.tags, 10)
    async with following(settings, held) as follower:
        retire(kafka, settings.topics.tags, 3)
        while await held.tags.count() != 7:
            await asyncio.sleep(0.02)
        assert not follower.held
        retire(kafka, settings.topics.tags, 3, first=3)
        await until(lambda: "6 of 10 tags" in follower.held)
        assert await held.tags.count() == 7


async def test_it_is_done_if_it_is_meant(kafka: Broker, topics: Topics) -> None:
    settings, held = settings_at(kafka, topics(LAYOUT), retire_share=1.0), memory()
    publish(kafka, settings.topics.tags, 10)
    async with following(settings, held):
        retire(kafka, settings.topics.tags, 10)
        while await held.tags.count():
            await asyncio.sleep(0.02)


async def test_a_topic_with_many_old_tombstones_fills_an_empty_memory(kafka: Broker, topics: Topics) -> None:
    """Given a vocabulary that took the place of another one, and no compaction yet."""
    settings, held = settings_at(kafka, topics(LAYOUT)), memory()
    publish(kafka, settings.topics.tags, 30)
    retire(kafka, settings.topics.tags, 30)
    publish(kafka, settings.topics.tags, 5, first=40)
    async with following(settings, held):
        assert await held.tags.keys() == {f"t{n}" for n in range(40, 45)}


async def test_a_store_on_disk_is_held_at_a_start_too(kafka: Broker, topics: Topics, tmp_path: Path) -> None:
    settings, release = settings_at(kafka, topics(LAYOUT)), encoder().release
    on_disk = MemorySettings(kind="embedded", path=tmp_path)
    publish(kafka, settings.topics.tags, 10)
    store = await open_memory(on_disk, release.name, release.dimension)
    try:
        async with following(settings, store):
            pass
        retire(kafka, settings.topics.tags, 10)
        async with running(Follower(settings, Projection(encoder(), store))) as follower, asyncio.timeout(SECONDS):
            await until(is_held)
            assert not follower.ready.is_set()
            assert await store.tags.keys() == EVERY
    finally:
        await store.close()


async def test_a_writer_that_was_away_holds_a_shared_memory(kafka: Broker, topics: Topics) -> None:
    settings, qdrant = settings_at(kafka, topics(LAYOUT)), AsyncQdrantClient(":memory:")
    publish(kafka, settings.topics.tags, 10)
    async with written(settings, qdrant):
        pass
    retire(kafka, settings.topics.tags, 10)
    async with running(await writing(settings, qdrant)) as follower, asyncio.timeout(SECONDS):
        await until(lambda: bool(follower.held))
        assert await (await opened(qdrant)).tags.keys() == EVERY


async def test_topics_that_fall_to_nothing_take_no_tags_from_readers(kafka: Broker, topics: Topics) -> None:
    names, qdrant = topics(LAYOUT), AsyncQdrantClient(":memory:")
    settings = settings_at(kafka, names)
    publish(kafka, settings.topics.tags, 10)
    async with written(settings, qdrant):
        pass
    admin = AdminClient({"bootstrap.servers": kafka.address})
    for future in admin.delete_topics([names["tags"]]).values():
        future.result(SECONDS)
    create_topics(kafka.address, {names["tags"]: 2})

    async with running(await writing(settings, qdrant)) as follower, asyncio.timeout(SECONDS):
        await until(is_held)
        assert not follower.ready.is_set()
        assert await (await opened(qdrant)).tags.keys() == EVERY
    publish(kafka, settings.topics.tags, 9)
    async with written(settings, qdrant):
        assert await (await opened(qdrant)).tags.keys() == EVERY - {"t9"}
