"""The shared memory: one indexer writes it, workers see how far it is."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from functools import partial

import pytest
from confluent_kafka import Consumer

from tagbus.stream.config import KafkaSettings, Settings
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Tag
from tagbus.stream.errors import DependencyDown
from tagbus.stream.index import write
from tagbus.stream.index.apply import Projection
from tagbus.stream.index.changes import TagChanges
from tagbus.stream.index.write import Progress, SharedMemory, indexer
from tagbus.stream.kafka.message import Partition
from tagbus.stream.memory.kinds import KINDS
from tagbus.stream.memory.store import Payload
from tests.conftest import Broker
from tests.index.parts import Watched, at, encoder, memory, running
from tests.support import Layout, produce, wait_until

Topics = Callable[[Mapping[str, Layout]], dict[str, str]]
LAYOUT: Mapping[str, Layout] = {"tags": 2, "exemplars": 2}
ProgressOf = Callable[[Settings, str], Progress]
SECONDS = 120.0


def publish(kafka: Broker, topic: str, count: int, first: int = 0) -> None:
    records = [encode_record(Tag(id=f"t{n}", name=f"subject {n}")) for n in range(first, first + count)]
    produce(kafka.address, topic, [(one.key, one.value, []) for one in records])


def settings_at(kafka: Broker, names: dict[str, str], tombstone_hours: float = 24.0) -> Settings:
    base = at(kafka.address, names)
    return base.model_copy(update={"memory": base.memory.model_copy(update={"tombstone_hours": tombstone_hours})})


@pytest.fixture
def progress_of() -> Iterator[Callable[[Settings, str], Progress]]:
    """Progress objects that are closed before the broker goes."""
    with ExitStack() as stack:

        def make(settings: Settings, release: str) -> Progress:
            with closing(Progress(settings, release)) as first:
                wait_until(partial(_answers, first), SECONDS, "the group's coordinator")
            progress = Progress(settings, release)
            stack.callback(progress.close)
            return progress

        yield make


def _answers(progress: Progress) -> bool:
    """A broker that has just started does not know yet that it is the group's coordinator."""
    try:
        progress.committed()
    except DependencyDown:
        return False
    return True


async def test_a_workers_gate_opens_when_the_indexer_has_caught_up(
    kafka: Broker, topics: Topics, progress_of: ProgressOf
) -> None:
    settings = settings_at(kafka, topics(LAYOUT))
    publish(kafka, settings.topics.tags, 50)
    progress = progress_of(settings, "r1")
    shared = SharedMemory(settings, progress_of(settings, "r1"))
    watching = asyncio.create_task(shared.run())
    async with asyncio.timeout(SECONDS):
        while not shared.remaining():
            await asyncio.sleep(0.02)
    assert not shared.ready.is_set()
    store = memory()

    writing = await indexer(settings, Projection(Watched(), store), store, progress)
    async with running(writing), asyncio.timeout(SECONDS):
        await shared.ready.wait()

    assert await store.tags.count() == 50
    assert sum(offset + 1 for offset in shared.taxonomy().values()) == 50
    watching.cancel()


async def test_a_workers_taxonomy_is_what_the_indexer_wrote_and_its_listeners_know(
    kafka: Broker, topics: Topics, progress_of: ProgressOf
) -> None:
    """Given a listener that is slow, no version shows a tag that it has not been told of; a retired one is told too."""
    settings = settings_at(kafka, topics({"tags": 1, "exemplars": 1}))
    publish(kafka, settings.topics.tags, 3)
    store, progress = memory(), progress_of(settings, "r1")
    told: list[Mapping[str, Payload | None]] = []
    go = asyncio.Event()

    async def listen(changes: Mapping[str, Payload | None]) -> None:
        await go.wait()
        told.append(changes)

    changes = TagChanges(encoder().release, [listen])
    shared = SharedMemory(settings, progress_of(settings, "r1"), changes)
    writing = await indexer(settings, Projection(Watched(), store), store, progress)
    watching = asyncio.create_task(shared.run())
    async with running(writing), asyncio.timeout(SECONDS):
        await shared.ready.wait()
        assert (shared.taxonomy(), told) == ({"0": 2}, [])

        publish(kafka, settings.topics.tags, 1, first=3)
        produce(kafka.address, settings.topics.tags, [(b"t0", None, [])])
        while max(offset for _, offset in shared.applied()) < 5:
            await asyncio.sleep(0.02)
        assert shared.taxonomy() == {"0": 2}

        go.set()
        while shared.taxonomy() != {"0": 4}:
            await asyncio.sleep(0.02)
    names = {key: payload and payload["name"] for one in told for key, payload in one.items()}
    assert names == {"t3": "subject 3", "t0": None}
    watching.cancel()


async def test_an_indexer_goes_on_where_it_was_stopped(kafka: Broker, topics: Topics, progress_of: ProgressOf) -> None:
    settings = settings_at(kafka, topics(LAYOUT))
    publish(kafka, settings.topics.tags, 10)
    watched, store = Watched(), memory()
    first = await indexer(settings, Projection(watched, store), store, progress_of(settings, "r1"))
    async with running(first), asyncio.timeout(SECONDS):
        await first.ready.wait()
    publish(kafka, settings.topics.tags, 5, first=10)
    await store.tags.delete(["t0"])

    second = await indexer(settings, Projection(watched, store), store, progress_of(settings, "r1"))
    async with running(second), asyncio.timeout(SECONDS):
        await second.ready.wait()

    assert watched.texts == 15
    assert "t0" not in await store.tags.keys(), "it read the whole topic again"


async def test_after_longer_than_tombstones_are_kept_the_memory_is_built_anew(
    kafka: Broker, topics: Topics, progress_of: ProgressOf
) -> None:
    names = topics(LAYOUT)
    settings = settings_at(kafka, names, tombstone_hours=1e-9)
    publish(kafka, settings.topics.tags, 10)
    progress = progress_of(settings, "r1")
    progress.commit(dict.fromkeys(progress.partitions(), 0))

    wait_until(lambda: progress.resume() is None, SECONDS, "the commit to be older than 3.6 microseconds")
    assert progress_of(settings_at(kafka, names), "r1").resume() is not None
    assert progress_of(settings_at(kafka, names), "another release").resume() is None


async def test_a_server_that_lost_its_collections_is_filled_anew_and_no_worker_starts_before(
    kafka: Broker, topics: Topics, progress_of: ProgressOf
) -> None:
    settings = settings_at(kafka, topics(LAYOUT))
    publish(kafka, settings.topics.tags, 10)
    progress, watched, store = progress_of(settings, "r1"), Watched(), memory()
    first = await indexer(settings, Projection(watched, store), store, progress)
    async with running(first), asyncio.timeout(SECONDS):
        await first.ready.wait()

    lost = memory()
    again = await indexer(settings, Projection(watched, lost), lost, progress)

    assert {offset for offset, _ in progress.committed().values()} == {0}
    async with running(again), asyncio.timeout(SECONDS):
        await again.ready.wait()
    assert await lost.tags.count() == 10


async def test_how_far_it_is_built_is_asked_often_and_which_partitions_there_are_seldom(
    kafka: Broker, topics: Topics, progress_of: ProgressOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_at(kafka, topics(LAYOUT))
    writing, reading = progress_of(settings, "r1"), progress_of(settings, "r1")
    partitions = writing.partitions()
    listed: list[str] = []
    list_partitions = write.list_partitions

    def counted(client: Consumer, kafka: KafkaSettings, topic: str) -> list[Partition]:
        listed.append(topic)
        return list_partitions(client, kafka, topic)

    monkeypatch.setattr(write, "list_partitions", counted)
    for offset in range(1, 4):
        writing.commit(dict.fromkeys(partitions, offset))
        assert {partition: at for partition, (at, _) in reading.committed().items()} == dict.fromkeys(
            partitions, offset
        )
    memory_topics = [kind.topic(settings.topics) for kind in KINDS.values()]
    assert listed == memory_topics

    monkeypatch.setattr(write, "LIST_SECONDS", 0.0)
    reading.committed()
    assert listed == memory_topics * 2
