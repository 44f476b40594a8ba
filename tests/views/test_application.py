"""What the app does where something goes wrong, without Kafka: it commits nothing that is not confirmed."""

import asyncio
import time
from pathlib import Path
from typing import cast

import pytest
from faust.types import TP
from yarl import URL

from tagbus.stream.config import KafkaSettings, Settings
from tagbus.stream.errors import Fatal
from tagbus.stream.views.application import Views
from tagbus.stream.views.transport import CommittedConsumer

OFFSETS = {TP("tagged", 0): 5}


@pytest.fixture
async def views(tmp_path: Path) -> Views:
    return Views(Settings(kafka=KafkaSettings(session_seconds=10)), tmp_path, partitions=4)


async def test_after_a_failure_nothing_is_committed(views: Views) -> None:
    async def fails() -> None:
        raise RuntimeError("no broker has it")

    with pytest.raises(RuntimeError):
        await views._finish(fails())
    assert str(views.problem) == "no broker has it"
    consumer = cast(CommittedConsumer, views.app.consumer)
    assert not await consumer._commit_offsets(OFFSETS)


async def test_a_batch_is_finished_before_its_agent_stops(views: Views) -> None:
    begun, released, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def works() -> None:
        begun.set()
        await released.wait()
        done.set()

    agent = asyncio.create_task(views._finish(works()))
    await begun.wait()
    agent.cancel()
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await agent
    assert done.is_set()
    assert views.problem is None


async def test_a_batch_that_fails_as_its_agent_stops_is_a_failure(views: Views) -> None:
    begun, released = asyncio.Event(), asyncio.Event()

    async def fails() -> None:
        begun.set()
        await released.wait()
        raise RuntimeError("refused")

    agent = asyncio.create_task(views._finish(fails()))
    await begun.wait()
    agent.cancel()
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await agent
    assert str(views.problem) == "refused"


async def test_a_process_that_stood_still_writes_nothing(views: Views) -> None:
    views._turned = time.monotonic() - 6
    with pytest.raises(Fatal, match="stood still for 6 s"):
        await views._apply([])
    views.turn()
    await views._apply([])


async def test_committed_records_alone_are_read(views: Views) -> None:
    consumer = cast(CommittedConsumer, views.app.consumer)
    thread = consumer._new_consumer_thread()
    assert thread._create_worker_consumer(views.app.transport)._isolation_level == "read_committed"


async def test_a_key_is_where_producers_put_it(views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    """As librdkafka's murmur2_random and Java's default partitioner do: `a` of 4 partitions."""
    topic = views.tags.changelog_topic.get_topic_name()
    held = {f"http://127.0.0.1:{8790 + number}": {topic: [number]} for number in range(4)}
    monkeypatch.setattr(views.app.router, "table_metadata", lambda _: held)
    # From Kafka's own tests: murmur2 of `foobar` is -790332482.
    assert views.owner(views.tags, b"foobar") == URL(f"http://127.0.0.1:{8790 + (-790332482 & 0x7FFFFFFF) % 4}")
    monkeypatch.setattr(views.app.router, "table_metadata", lambda _: {})
    assert views.owner(views.tags, b"foobar") is None
