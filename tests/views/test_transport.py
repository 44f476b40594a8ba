"""The views' consumer: what it fetches is delivered, in order, wherever a restore ends."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.structs import ConsumerRecord
from faust.tables.recovery import RebalanceAgain, ServiceStopped
from faust.types import TP
from faust.types.tuples import Message
from mode.utils.queues import ThrowableQueue

from tagbus.stream.config import KafkaSettings, Settings
from tagbus.stream.errors import DependencyDown
from tagbus.stream.views.application import Views
from tagbus.stream.views.transport import CommittedConsumer

TAGGED = TP("tagged", 0)
RECORDS = range(40)
# More turns of the loop than a fetch takes here.
TURNS = 50


def record(offset: int) -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord("tagged", 0, offset, 0, 0, b"a", b"{}", None, 1, 2, [])


async def turns(count: int = TURNS) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Partition:
    """Stands where the client's thread does: one partition of 40 records, fetched five at a time."""

    def __init__(self, committed: int | None) -> None:
        self.committed = committed
        self.position = committed or 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def getmany(self, active: set[TP], timeout: float) -> Mapping[TP, list[ConsumerRecord[bytes, bytes]]]:
        await turns(3)
        if TAGGED not in active or self.position == RECORDS.stop:
            return {}
        first, self.position = self.position, min(self.position + 5, RECORDS.stop)
        return {TAGGED: [record(offset) for offset in range(first, self.position)]}

    async def seek_to_committed(self) -> Mapping[TP, int | None]:
        await turns(3)
        await self.answers.wait()
        self.position = self.position if self.committed is None else self.committed
        return {TAGGED: self.committed}

    async def earliest_offsets(self, *_: TP) -> Mapping[TP, int]:
        return {TAGGED: 0}

    async def seek_wait(self, positions: Mapping[TP, int]) -> None:
        self.position = positions[TAGGED]

    def assignment(self) -> set[TP]:
        return {TAGGED}

    def highwater(self, _: TP) -> int:
        return RECORDS.stop


class Reader:
    """A consumer of the views on that partition, with the queue of a stream."""

    def __init__(self, views: Views, partition: Partition) -> None:
        self.app = views.app
        self.consumer = cast(CommittedConsumer, views.app.consumer)
        self.consumer._thread = cast(Any, partition)
        self.consumer.callback = self.deliver
        self.queue = self.app.FlowControlQueue(maxsize=1000, clear_on_resume=True)
        self.delivered = list[int]()
        self.app.flow_control.resume()
        self.changelog = TP(views.contents.changelog_topic.get_topic_name(), 0)
        self.consumer.pause_partitions({TAGGED})

    async def deliver(self, message: Message) -> None:
        await self.queue.put(message.offset)

    async def resumes(self) -> None:
        """What Faust does at the end of a restore, the loop busy in between."""
        self.consumer.resume_partitions({self.changelog})
        await turns()
        self.consumer.pause_partitions({self.changelog})
        self.consumer.resume_partitions({TAGGED})
        await turns(1)
        await self.consumer.perform_seek()
        await turns()
        self.app.flow_control.resume()
        self.consumer.resume_flow()

    async def read(self) -> None:
        """As an agent does, until the last record."""
        while not self.delivered or self.delivered[-1] != RECORDS[-1]:
            self.delivered.append(await self.queue.get())


@pytest.fixture
async def views(tmp_path: Path) -> Views:
    return Views(Settings(kafka=KafkaSettings(session_seconds=10)), tmp_path, partitions=1)


@asynccontextmanager
async def fetching(reader: Reader) -> AsyncIterator[None]:
    fetcher = SimpleNamespace(_stopped=asyncio.Event())
    task = asyncio.create_task(reader.consumer._drain_messages(cast(Any, fetcher)))
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("committed", [17, 0, None])
async def test_after_a_restore_no_record_is_left_out(views: Views, committed: int | None) -> None:
    reader = Reader(views, Partition(committed))
    async with fetching(reader):
        await reader.resumes()
        await asyncio.wait_for(reader.read(), 60)
    assert reader.delivered == list(range(committed or 0, RECORDS.stop))


async def test_a_restore_that_the_brokers_do_not_answer_fails(views: Views) -> None:
    """Faust ends it silently: the views would never be ready again."""
    partition = Partition(17)
    partition.answers.clear()
    reader = Reader(views, partition)
    reader.consumer.resume_partitions({TAGGED})
    with pytest.raises(ServiceStopped):
        await views.app.tables.recovery._wait(reader.consumer.perform_seek(), timeout=0.1)
    assert isinstance(views.problem, DependencyDown)
    assert not reader.consumer.flow_active


async def test_a_restore_that_is_stopped_or_begins_again_is_no_failure(views: Views) -> None:
    recovery = views.app.tables.recovery
    recovery.signal_recovery_start.set()
    with pytest.raises(RebalanceAgain):
        await recovery._wait(asyncio.Event().wait(), timeout=60)
    recovery.signal_recovery_start.clear()
    recovery._stopped.set()
    with pytest.raises(ServiceStopped):
        await recovery._wait(asyncio.Event().wait(), timeout=60)
    assert views.problem is None


async def test_a_record_that_gets_room_as_partitions_are_given_away_is_dropped(views: Views) -> None:
    """The agent has taken a record, the one that waits is about to follow."""
    flow, queue = views.app.flow_control, full(views)
    put = asyncio.create_task(queue.put(2))
    await turns()
    queue.get_nowait()
    flow.suspend()
    flow.clear()
    await turns()
    assert put.cancelled()
    assert queue.empty()


async def test_a_record_put_while_partitions_are_given_away_is_dropped(views: Views) -> None:
    """It would come first after the restore, and a table skips the changelog records before it."""
    flow, queue = views.app.flow_control, full(views)
    put = asyncio.create_task(queue.put(2))
    flow.suspend()
    flow.clear()
    await turns()
    flow.resume()
    await turns()
    assert put.cancelled()
    assert queue.empty()


async def test_nothing_is_put_while_partitions_are_given_away(views: Views) -> None:
    """The record waited for the producer, whose buffer was full."""
    queue = views.app.FlowControlQueue(maxsize=2, clear_on_resume=True)
    views.app.flow_control.suspend()
    queue.force_put_nowait(0)
    assert queue.empty()
    views.app.flow_control.resume()
    queue.force_put_nowait(1)
    assert queue.get_nowait() == 1


async def test_a_record_waits_for_room(views: Views) -> None:
    queue = full(views)
    put = asyncio.create_task(queue.put(2))
    await turns()
    assert [await queue.get() for _ in range(3)] == [0, 1, 2]
    await put


def full(views: Views) -> ThrowableQueue[int]:
    """A queue of two records, as those of the tables and agents."""
    views.app.flow_control.resume()
    queue = views.app.FlowControlQueue(maxsize=2, clear_on_resume=True)
    queue.put_nowait(0)
    queue.put_nowait(1)
    return queue
