"""The views' consumer: what it fetches is delivered, in order, wherever a restore ends."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.structs import ConsumerRecord
from faust.types import TP
from faust.types.tuples import Message

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


async def test_without_committed_offsets_it_fails_instead_of_reading_on(views: Views) -> None:
    partition = Partition(17)
    partition.answers.clear()
    reader = Reader(views, partition)
    reader.consumer.resume_partitions({TAGGED})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.consumer.perform_seek(), 0.1)
    reader.consumer.resume_flow()
    assert isinstance(views.problem, DependencyDown)
    assert not reader.consumer.flow_active


async def test_a_changelog_is_read_while_committed_offsets_are_unknown(views: Views) -> None:
    """A rebalance interrupts the seek, and the next restore begins."""
    partition = Partition(17)
    partition.answers.clear()
    reader = Reader(views, partition)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.consumer.perform_seek(), 0.1)
    reader.consumer.resume_partitions({reader.changelog})
    reader.consumer.resume_flow()
    assert views.problem is None
    assert reader.consumer.flow_active
