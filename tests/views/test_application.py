"""The app under failures, without Kafka: it never commits unconfirmed records."""

import asyncio
import time
from pathlib import Path
from typing import cast

import pytest
from faust.types import TP
from yarl import URL

from tagbus.stream.config import KafkaSettings, Settings
from tagbus.stream.errors import DependencyDown, Fatal, UserError
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


async def test_partitions_are_given_away_when_the_batch_in_progress_is_finished(views: Views) -> None:
    """A row that is written later would replace one of the next owner in the changelog."""
    begun, released, ends = asyncio.Event(), asyncio.Event(), list[str]()

    async def works() -> None:
        begun.set()
        await released.wait()
        ends.append("batch")

    async def revoked() -> None:
        await views.app._consumer_wait_empty(None, None)
        ends.append("partitions")

    agent = asyncio.create_task(views._finish(works()))
    await begun.wait()
    giving = asyncio.create_task(revoked())
    asyncio.get_running_loop().call_later(3 * views.app.collecting_seconds, released.set)
    await asyncio.gather(agent, giving)
    assert ends == ["batch", "partitions"]


async def test_a_batch_that_comes_after_its_partitions_were_given_away_is_a_failure(views: Views) -> None:
    await views.app._consumer_wait_empty(None, None)
    with pytest.raises(Fatal, match="given away"):
        await views._finish(views._apply([]))
    assert isinstance(views.problem, Fatal)


async def test_a_batch_that_is_not_confirmed_in_time_ends_the_replica(views: Views) -> None:
    views.app.conf.broker_session_timeout = 0.1
    agent = asyncio.create_task(views._finish(asyncio.Event().wait()))  # type: ignore[arg-type]
    await views.app._consumer_wait_empty(None, None)
    agent.cancel()
    assert isinstance(views.problem, DependencyDown)


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


def told(views: Views, patch: pytest.MonkeyPatch, own: set[int], others: dict[str, list[int]]) -> None:
    """Faust's assignment for this replica: its own partitions, and those of each address."""
    topic = views.contents.changelog_topic.get_topic_name()
    held = {url: {topic: partitions} for url, partitions in others.items()}
    patch.setattr(views.app.router, "table_metadata", lambda _: held)
    patch.setattr(views.app.assignor, "assigned_actives", lambda: {TP(topic, partition) for partition in own})


@pytest.mark.parametrize(
    ("own", "others"),
    [
        # The other one shadows it, it shadows the other one, and it has no partition.
        ({0, 1}, {"http://127.0.0.1:8790": [2, 3]}),
        ({2, 3}, {"http://127.0.0.1:8790": [2, 3]}),
        (set(), {"http://127.0.0.1:8790": [0, 1, 2, 3]}),
    ],
)
async def test_a_replica_that_comes_to_the_address_of_another_ends_and_says_so(
    views: Views, monkeypatch: pytest.MonkeyPatch, own: set[int], others: dict[str, list[int]]
) -> None:
    told(views, monkeypatch, own, others)
    views.turn()
    with pytest.raises(
        UserError, match=r"another replica of tagbus-views advertises http://127\.0\.0\.1:8790 too; give each"
    ):
        views.turn()


async def test_replicas_at_distinct_addresses_keep_running(views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    told(views, monkeypatch, set(), {})
    views.turn()
    views.turn()
    told(views, monkeypatch, {0, 1}, {"http://127.0.0.1:8790": [0, 1], "http://127.0.0.1:8791": [2, 3]})
    views.turn()
    views.turn()


async def test_a_replica_that_has_served_keeps_running_when_another_takes_its_address(
    views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(views, monkeypatch, {0, 1, 2, 3}, {"http://127.0.0.1:8790": [0, 1, 2, 3]})
    monkeypatch.setattr(Views, "settled", True)
    views.turn()
    told(views, monkeypatch, {0, 1}, {"http://127.0.0.1:8790": [2, 3]})
    views.turn()
    views.turn()
