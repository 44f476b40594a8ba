"""The topic `budget` as a ledger: each worker writes its own records, and reads those of its group."""

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from typing import Final

from confluent_kafka import KafkaError, Message, Producer

from tagbus.stream.config import Settings
from tagbus.stream.contract.budget import Spending, decode_spending, encode_spending
from tagbus.stream.contract.codec import Record, Tombstone
from tagbus.stream.errors import DependencyDown, MemoryLost, Poison, TagbusError
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.access import missing_rights
from tagbus.stream.kafka.errors import RAISED
from tagbus.stream.kafka.follower import TopicFollower
from tagbus.stream.kafka.message import offset_of, partition_of, record_of
from tagbus.stream.kafka.metadata import list_partitions
from tagbus.stream.kafka.reader import Chunk, Gap, TopicReader
from tagbus.stream.llm.spending.budget import Sum

log = logging.getLogger(__name__)

MOST: Final = 1000
WAIT_SECONDS: Final = 0.2
# The timeout of a record: contents wait for it, and are published without the judge after it.
WRITE_SECONDS: Final = 5.0


class TopicLedger:
    """Implements `Ledger`. One event loop; the producer has a separate thread."""

    def __init__(self, settings: Settings, producer: Producer) -> None:
        self._topic = settings.topics.budget
        self._group = settings.kafka.group
        self._worker = settings.kafka.instance
        self._producer = producer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="budget")
        # By period and worker.
        self._spent: dict[tuple[str, str], Sum] = {}
        # What ended the reading of the topic.
        self._failure: TagbusError | None = None

    def own(self, period: str) -> Sum:
        """See `Ledger`. Called before the first write in that period."""
        return self._spent.get((period, self._worker), Sum())

    def others(self, period: str) -> Sum:
        """See `Ledger`. Raises MemoryLost if the topic is no longer read: the group would overspend its budget."""
        if self._failure is not None:
            raise MemoryLost(f"what other workers spend is no longer known: {self._failure}") from self._failure
        found = (one for (of, worker), one in self._spent.items() if of == period and worker != self._worker)
        return sum(found, Sum())

    async def write(self, spending: Spending) -> None:
        """See `Ledger`."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._produce, encode_spending(spending))

    def drop(self, period: str) -> None:
        """See `Ledger`. If it fails, the record stays until a worker starts on another day."""
        self._drop(period, self._worker)

    def sweep(self, today: str) -> None:
        """Drop records that no budget reads any more, of any worker: minutes of days before `today`, and days a month
        old."""
        month = (date.fromisoformat(today) - timedelta(days=31)).isoformat()
        for period, worker in list(self._spent):
            if period < (today if "T" in period else month):
                self._drop(period, worker)

    async def follow(self, following: TopicFollower, caught_up: asyncio.Event) -> None:
        """Read until cancelled; `caught_up` is set once all records from before the start are read."""
        positions = following.positions
        try:
            while True:
                if positions.caught_up():
                    caught_up.set()
                chunk = await following.read(MOST, WAIT_SECONDS)
                self._apply(chunk)
                positions = chunk.positions
        except TagbusError as error:
            self._failure = error
            raise

    def close(self) -> None:
        """Wait for pending writes."""
        self._thread.shutdown()

    def _drop(self, period: str, worker: str) -> None:
        self._thread.submit(self._produce, Record(f"{self._group}/{period}/{worker}".encode(), None))

    def _apply(self, chunk: Chunk) -> None:
        for message in chunk.messages:
            try:
                event = decode_spending(record_of(message))
            except Poison as poison:
                log.warning("skipped %s:%d:%d: %s", *partition_of(message), offset_of(message), poison)
                continue
            if isinstance(event, Tombstone):
                group, _, place = event.key.partition("/")
                period, _, worker = place.partition("/")
                if group == self._group:
                    self._spent.pop((period, worker), None)
            elif event.group == self._group:
                tokens = event.spent.tokens + event.reserved.tokens
                self._spent[event.period, event.worker] = Sum(tokens, event.spent.cost + event.reserved.cost)

    def _produce(self, record: Record) -> None:
        failures: list[KafkaError] = []

        def report(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failures.append(error)

        try:
            self._producer.produce(self._topic, record.value, record.key, on_delivery=report)
            left = self._producer.flush(WRITE_SECONDS)
        except RAISED as raised:
            raise DependencyDown(f"topic {self._topic} takes no record: {raised}") from None
        if failures or left:
            why = failures[0].str() if failures else f"nothing was confirmed for {WRITE_SECONDS:.0f} s"
            raise DependencyDown(f"topic {self._topic} takes no record: {why}")


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[TopicLedger]:
    """The ledger, with all earlier spending. Raises TopicMissing, DependencyDown if no broker answers, UserError for a
    missing right."""
    topic = settings.topics.budget
    producer = clients.plain_producer(settings.kafka)
    await asyncio.to_thread(list_partitions, producer, settings.kafka, topic, "Write")
    # A record that may not be written would count as one that no broker takes, and nobody would be asked.
    if refused := await asyncio.to_thread(missing_rights, settings.kafka, [("Read", topic), ("Write", topic)]):
        raise refused
    ledger = TopicLedger(settings, producer)
    try:
        async with TopicFollower(TopicReader(settings.kafka, _lost), [topic]) as following:
            caught_up = asyncio.Event()
            reading = asyncio.create_task(ledger.follow(following, caught_up))
            waiting = asyncio.create_task(caught_up.wait())
            try:
                await asyncio.wait({reading, waiting}, return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    reading.result()
                ledger.sweep(datetime.now(UTC).date().isoformat())
                yield ledger
            finally:
                for task in (reading, waiting):
                    task.cancel()
                    with suppress(asyncio.CancelledError, Exception):
                        await task
    finally:
        await asyncio.to_thread(ledger.close)


def _lost(gap: Gap) -> MemoryLost:
    return MemoryLost(f"topic {gap.partition[0]} was recreated: {gap}; restart to read it again")
