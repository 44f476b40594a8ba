"""The start gate and the follower on Apache Kafka: no content is tagged with a partial memory, and no start hangs."""

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from tagbus.stream.contract.codec import Record, encode_record
from tagbus.stream.contract.events import Exemplar, Knowledge, Tag
from tagbus.stream.errors import MemoryLost, UserError
from tagbus.stream.index.apply import Projection
from tagbus.stream.index.bootstrap import CHUNK, Follower
from tagbus.stream.local.apache import ApacheKafka
from tagbus.stream.local.mock import MockCluster
from tagbus.stream.memory import Memory, memory_of
from tagbus.stream.memory.qdrant.embedded import EmbeddedStore
from tests.conftest import Broker
from tests.index.parts import Failing, Quick, Watched, at, embedded_memory, memory, record, running
from tests.support import Layout, create_topics, produce, unique

Topics = Callable[[Mapping[str, Layout]], dict[str, str]]
SECONDS = 120.0
COMPACT = (3, {"cleanup.policy": "compact"})


def tags(count: int, first: int = 0) -> list[Tag]:
    return [Tag(id=f"t{number}", name=f"subject number {number}") for number in range(first, first + count)]


def publish(kafka: Broker, topic: str, events: list[Tag] | list[Exemplar]) -> None:
    records = [encode_record(event) for event in events]
    produce(kafka.address, topic, [(one.key, one.value, []) for one in records])


def retire(kafka: Broker, topic: str, key: str) -> None:
    produce(kafka.address, topic, [(key.encode(), None, [])])


async def until_applied(follower: Follower, before: dict[str, int]) -> None:
    async with asyncio.timeout(SECONDS):
        while follower.taxonomy() == before:
            await asyncio.sleep(0.01)


async def opened(follower: Follower) -> None:
    async with asyncio.timeout(SECONDS):
        await follower.ready.wait()


async def test_the_gate_opens_only_when_all_is_in_memory_though_the_encoder_is_slow(
    kafka: Broker, topics: Topics
) -> None:
    names = topics({"tags": COMPACT, "exemplars": COMPACT})
    publish(kafka, names["tags"], tags(700))
    publish(kafka, names["exemplars"], [Exemplar(id=f"c{n}", text=f"title {n}", accepted=("t1",)) for n in range(300)])
    store = memory()

    async with running(Follower(at(kafka.address, names), Projection(Watched(wait=0.3), store))) as follower:
        seen = []
        async with asyncio.timeout(SECONDS):
            while not follower.ready.is_set():
                seen.append(await store.tags.count())
                await asyncio.sleep(0.02)

        assert await store.tags.count() == 700
        assert await store.exemplars.count() == 300
        assert follower.remaining() == 0
    assert min(seen) == 0, "the gate was never closed, so this test shows nothing"


async def test_transaction_markers_and_aborted_records_at_the_end_do_not_hang_the_start(
    kafka: Broker, topics: Topics
) -> None:
    names = topics({"tags": COMPACT, "exemplars": COMPACT})
    producer = Producer({"bootstrap.servers": kafka.address, "transactional.id": names["tags"]})
    producer.init_transactions(30)
    for events, end in ((tags(5), producer.commit_transaction), (tags(5, first=100), producer.abort_transaction)):
        producer.begin_transaction()
        for event in events:
            sent = encode_record(event)
            for partition in range(3):
                producer.produce(names["tags"], sent.value, sent.key, partition)
        producer.flush(30)
        end(30)
    store = memory()

    async with running(Follower(at(kafka.address, names), Projection(Watched(), store))) as follower:
        await opened(follower)

        assert await store.tags.keys() == {f"t{number}" for number in range(5)}


async def test_empty_topics_open_the_gate(kafka: Broker, topics: Topics) -> None:
    names = topics({"tags": COMPACT, "exemplars": COMPACT})

    async with running(Follower(at(kafka.address, names), Projection(Watched(), memory()))) as follower:
        await opened(follower)

        assert follower.taxonomy() == {"0": -1, "1": -1, "2": -1}


async def test_what_comes_later_shows_with_the_taxonomy_version(kafka: Broker, topics: Topics) -> None:
    names = topics({"tags": (1, {"cleanup.policy": "compact"}), "exemplars": COMPACT})
    publish(kafka, names["tags"], tags(3))
    store = memory()

    async with running(Follower(at(kafka.address, names), Projection(Watched(), store))) as follower:
        await opened(follower)
        first = follower.taxonomy()
        publish(kafka, names["tags"], tags(1, first=3))
        await until_applied(follower, first)
        second = follower.taxonomy()
        with_new = await store.tags.keys()
        retire(kafka, names["tags"], "t0")
        await until_applied(follower, second)

        assert (first, second, follower.taxonomy()) == ({"0": 2}, {"0": 3}, {"0": 4})
        assert with_new == {"t0", "t1", "t2", "t3"}
        assert await store.tags.keys() == {"t1", "t2", "t3"}


async def test_a_dependency_that_is_down_is_waited_for(kafka: Broker, topics: Topics) -> None:
    names = topics({"tags": COMPACT, "exemplars": COMPACT})
    publish(kafka, names["tags"], tags(10))
    store = memory()

    async with running(Follower(at(kafka.address, names), Projection(Watched(failures=4), store))) as follower:
        await opened(follower)

        assert await store.tags.count() == 10


async def test_a_store_that_fails_as_the_gate_is_to_open_is_waited_for(kafka: Broker, topics: Topics) -> None:
    names = topics({"tags": COMPACT, "exemplars": COMPACT})
    store = memory()
    failing = Failing(store.tags.release, store.tags.dimension)
    projection = Projection(Watched(), Memory({**store.stores, "tags": failing}))
    await projection.apply([record(Tag(id="old", name="swept out"))])
    failing.failures = 3

    follower = Follower(at(kafka.address, names), projection)
    async with running(follower):
        await opened(follower)

    assert failing.refused == 3
    assert await failing.keys() == set()


async def test_a_kept_store_is_swept_and_encodes_nothing_twice(kafka: Broker, topics: Topics) -> None:
    names = topics({"tags": COMPACT, "exemplars": COMPACT})
    publish(kafka, names["tags"], tags(20))
    stale = Tag(id="retired-long-ago", name="its tombstone is gone")
    watched = Watched()
    of = watched.release
    store = await memory_of(lambda _, carried: EmbeddedStore.temporary(of.name, of.dimension, carried))
    await Projection(watched, store).apply([*map(record, [*tags(20), stale])])
    encoded = watched.texts

    async with running(Follower(at(kafka.address, names), Projection(watched, store))) as follower:
        await opened(follower)

        assert watched.texts == encoded == 21
        assert await store.tags.keys() == {f"t{number}" for number in range(20)}
    await store.close()


async def test_a_process_with_the_embedded_engine_that_is_killed_in_mid_write_is_gone_on_from(
    kafka: Broker, topics: Topics, tmp_path: Path
) -> None:
    """Three times SIGKILL while it fills its memory; then it holds what the topics say, and what it held before stays
    encoded."""
    names, watched = topics({"tags": 2, "exemplars": 1}), Watched()
    publish(kafka, names["tags"], tags(120))
    code = f"""
import asyncio
from pathlib import Path
from tagbus.stream.index import bootstrap
from tagbus.stream.index.apply import Projection
from tagbus.stream.memory.qdrant.embedded import EmbeddedStore
from tests.index.parts import at, embedded_memory, encoder
bootstrap.CHUNK = 10
upsert = EmbeddedStore.upsert
async def told(store, points):
    print("writing", flush=True)
    await upsert(store, points)
EmbeddedStore.upsert = told
async def main():
    store = await embedded_memory(Path({str(tmp_path)!r}))
    await bootstrap.Follower(at({kafka.address!r}, {names!r}), Projection(encoder(), store)).run()
asyncio.run(main())
"""
    for writes in (3, 5, 2):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        async with asyncio.timeout(SECONDS):
            for _ in range(writes):
                assert await process.stdout.readline() == b"writing\n"
            process.send_signal(signal.SIGKILL)
            assert await process.wait() == -signal.SIGKILL
        retire(kafka, names["tags"], f"t{writes}")

    store = await embedded_memory(tmp_path)
    async with running(Follower(at(kafka.address, names), Projection(watched, store))) as follower:
        await opened(follower)
        assert await store.tags.keys() == {f"t{number}" for number in range(120)} - {"t3", "t5", "t2"}
        assert watched.texts < 120, "what was written before a kill is not encoded again"
    await store.close()


async def test_a_missing_topic_is_named(kafka: Broker, topics: Topics) -> None:
    names = topics({"tags": COMPACT})
    settings = at(kafka.address, {**names, "exemplars": "no-such-topic"})

    with pytest.raises(UserError, match="no-such-topic does not exist"):
        await asyncio.wait_for(Follower(settings, Projection(Watched(), memory())).run(), SECONDS)


async def test_offsets_out_of_range_lose_the_memory_loudly(kafka: Broker, topics: Topics) -> None:
    names = topics({"tags": (1, {}), "exemplars": (1, {})})
    publish(kafka, names["tags"], tags(3))
    resume = {(names["tags"], 0): 99}

    follower = Follower(at(kafka.address, names), Projection(Watched(), memory()), resume)

    with pytest.raises(MemoryLost, match="offsets 0 to 3, but memory was built up to 99"):
        await asyncio.wait_for(follower.run(), SECONDS)


async def test_partitions_that_a_memory_topic_gets_later_are_read_too(
    kafka: Broker, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tagbus.stream.kafka.follower.GROWTH_SECONDS", 0.1)
    names = topics({"tags": 1, "exemplars": 1})
    store = memory()

    async with running(Follower(at(kafka.address, names), Projection(Watched(), store))) as follower:
        await opened(follower)
        admin = AdminClient({"bootstrap.servers": kafka.address})
        admin.create_partitions([NewPartitions(names["tags"], 3)])[names["tags"]].result(SECONDS)
        publish(kafka, names["tags"], tags(30))
        async with asyncio.timeout(SECONDS):
            while await store.tags.count() < 30:
                await asyncio.sleep(0.02)

        assert follower.taxonomy().keys() == {"0", "1", "2"}


@pytest.mark.parametrize("old", [0, 1])
async def test_of_a_key_that_moved_to_another_partition_the_newer_record_counts(
    mock_kafka: MockCluster, old: int
) -> None:
    """Given a renamed and a retired tag whose older records, in another partition, are read in a later chunk."""
    for name in ("tags", "exemplars"):
        mock_kafka.topic(name, 2)

    def put(partition: int, milliseconds: int, *records: Record) -> None:
        given = [(one.key, one.value, []) for one in records]
        produce(mock_kafka.address, "tags", given, partition, milliseconds)

    before = [encode_record(one) for one in (*tags(2 * CHUNK), Tag(id="a", name="old name"), Tag(id="b", name="b"))]
    put(old, 1_000, *before)
    put(1 - old, 2_000, encode_record(Tag(id="a", name="new name")), Record(b"b", None))
    own = memory()
    settings = at(mock_kafka.address, {"tags": "tags", "exemplars": "exemplars"})
    async with running(Follower(settings, Projection(Quick(), own))) as follower:
        await opened(follower)
        found = await own.tags.fetch(["a", "b"])
    assert {key: payload["name"] for key, payload in found.items()} == {"a": "new name"}
    assert await own.tags.count() == 2 * CHUNK + 1


async def test_a_broker_that_is_away_for_a_while_does_not_end_the_following(
    apache: Callable[..., ApacheKafka], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tagbus.stream.kafka.follower.GROWTH_SECONDS", 0.1)
    monkeypatch.setattr("tagbus.stream.kafka.metadata.ASK_SECONDS", 1.0)
    store = memory()
    with apache() as broker:
        create_topics(broker.address, {"tags": 1, "exemplars": 1})
        names = {"tags": "tags", "exemplars": "exemplars"}
        async with running(Follower(at(broker.address, names), Projection(Watched(), store))) as follower:
            await opened(follower)
            await asyncio.to_thread(broker.kill)
            async with asyncio.timeout(SECONDS):
                while "no broker answered" not in caplog.text:
                    await asyncio.sleep(0.02)
            await asyncio.to_thread(broker.restart)
            publish(Broker(broker.address, "restarted"), "tags", tags(3))
            async with asyncio.timeout(SECONDS):
                while await store.tags.count() < 3:
                    await asyncio.sleep(0.02)


async def test_knowledge_may_come_later(kafka: Broker, topics: Topics, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given no topic of knowledge, the gate opens; once there is one, its segments come to memory."""
    monkeypatch.setattr("tagbus.stream.kafka.follower.GROWTH_SECONDS", 0.5)
    names = {**topics({"tags": COMPACT, "exemplars": COMPACT}), "knowledge": unique("knowledge")}
    store = memory()
    async with running(Follower(at(kafka.address, names), Projection(Watched(), store))) as follower:
        await opened(follower)
        create_topics(kafka.address, {names["knowledge"]: COMPACT})
        segment = encode_record(Knowledge(id="k1", kind="rule", text="Cats are no dogs."))
        produce(kafka.address, names["knowledge"], [(segment.key, segment.value, [])])
        async with asyncio.timeout(SECONDS):
            while await store.stores["knowledge"].keys() != {"k1"}:
                await asyncio.sleep(0.02)
