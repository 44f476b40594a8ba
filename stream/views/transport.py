"""Overrides of Faust's transport and tables for the views.

- It reads uncommitted records unless it works in transactions. `tagged` is written in transactions.
- What a table sends to its changelog is flushed for at most 0.1 s before offsets are committed. Here it can be awaited.
- Its sensors do not say how far it is behind where transaction markers end a partition.
- It fetches while it seeks to committed offsets, and then empties the streams' queues. Records that were fetched in
  between are neither processed nor read again, and commits go past them.
- It ends its restores silently where the brokers do not answer one request for 90 s.
- A record that waits for room in a queue is put there after Faust has emptied it. The table skips the changelog records
  before it, and an agent handles a record of a partition that may be another replica's.
- It gives partitions away while a batch is in progress. A row that is written then may follow one of the next owner in
  the changelog, and replaces it wherever the table is restored.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import faust
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery, ServiceStopped
from faust.tables.table import Table
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP
from faust.types.transports import TransportT
from faust.types.tuples import FutureMessage, Message
from mode.services import WaitArgT
from mode.utils.queues import ThrowableQueue

from tagbus.stream.errors import DependencyDown

# How long the fetcher waits where it has no partitions.
IDLE_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Standing:
    """The read state of a partition. `waiting`: offsets from the first unfinished one to the end as of the last fetch.
    `oldest`: Unix seconds of the first unfinished record, None if none is in progress."""

    waiting: int
    oldest: float | None


class CommittedThread(AIOKafkaConsumerThread):
    """Reads committed records only."""

    def _create_worker_consumer(self, transport: Transport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # There is no setting for it; the consumer reads it at its start.
        consumer._isolation_level = "read_committed"
        return consumer

    def ends(self, topics: Collection[str]) -> Mapping[TP, tuple[int, int]]:
        """The next offset to fetch and the end of each assigned partition that was fetched once."""
        consumer = self._consumer
        subscribed = None if consumer is None else consumer._subscription.subscription
        assigned = None if subscribed is None else subscribed.assignment
        if assigned is None:
            return {}
        found = {}
        for tp in assigned.tps:
            state = assigned.state_value(tp)
            # Read once each: the client's thread may unset them meanwhile.
            position, end = (None, None) if state is None else (state._position, state.highwater)
            if tp.topic in topics and position is not None and end is not None:
                found[TP(*tp)] = (position, end)
        return found


class CommittedConsumer(Consumer):
    """See CommittedThread. After a failure it commits nothing. Positions move only while no fetch is in progress."""

    _thread: CommittedThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._positions = asyncio.Lock()

    def _new_consumer_thread(self) -> CommittedThread:
        return CommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:  # noqa: FBT001, FBT002 - Faust's
        if isinstance(self.app, App) and self.app.failed is not None:
            return False
        return await super()._commit_offsets(offsets, start_new_transaction)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:
        """The records of one fetch. No position moves until they are delivered, or dropped because the flow stopped:
        in that case positions are set before it resumes."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow.wait())
        active = self._get_active_partitions()
        if not active:
            await self.sleep(IDLE_SECONDS)
            return
        async with self._positions:
            records = await self._getmany(active, timeout)
            for tp, record in self.scheduler.iterate(records):
                if not self.flow_active:
                    return
                if tp in active or tp in self._buffered_partitions:
                    yield tp, self._to_message(tp, record)

    async def perform_seek(self) -> None:
        """Move to the committed offsets, or to the start of what has none. The flow stops until Faust resumes it: it
        empties the streams' queues just before."""
        self.stop_flow()
        async with self._positions:
            await super().perform_seek()
            if unread := [tp for tp in self.assignment() if self._is_unread(tp)]:
                await super().seek_wait(await self.earliest_offsets(*unread))

    def _is_unread(self, tp: TP) -> bool:
        return self._read_offset[tp] is None and not self._is_changelog_tp(tp)

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """See Consumer."""
        async with self._positions:
            await super().seek_wait(partitions)

    def standings(self, topics: Collection[str]) -> Mapping[TP, Standing]:
        """The read state of each of this replica's partitions. A transaction marker after the last record is not lag:
        the position is past it."""
        first: dict[TP, Message] = {}
        for message in list(self.unacked):
            known = first.get(message.tp)
            if not message.acked and (known is None or message.offset < known.offset):
                first[message.tp] = message
        found = {}
        for tp, (position, end) in self._thread.ends(topics).items():
            at = first.get(tp)
            found[tp] = Standing(
                max(0, end - (position if at is None else at.offset)), None if at is None else at.timestamp
            )
        return found


class CommittedTransport(Transport):
    """See CommittedThread."""

    Consumer = CommittedConsumer


class RecordQueue(ThrowableQueue[Any]):
    """A queue of records. To empty it also drops the records that wait for room: they are read again."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._putting: set[asyncio.Task[Any]] = set()

    def clear(self) -> None:
        """See ThrowableQueue."""
        super().clear()
        for task in self._putting:
            task.cancel()

    async def put(self, value: Any) -> None:
        """See ThrowableQueue. Faust puts each record that has to wait in a task of its own."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a queue is filled in a task")
        self._putting.add(task)
        try:
            await super().put(value)
        finally:
            self._putting.discard(task)

    def force_put_nowait(self, item: Any) -> None:
        """See FlowControlQueue. A record that waited for the producer may come while partitions are given away."""
        if self._flow_control.is_active():
            super().force_put_nowait(item)


class Restore(Recovery):
    """The restore of tables. It says so when it ends before the app does."""

    async def _wait(self, coro: WaitArgT, timeout: float | None = None) -> None:  # type: ignore[override]
        try:
            await super()._wait(coro, timeout)
        except ServiceStopped:
            if not self.should_stop and isinstance(self.app, App):
                self.app.failed = DependencyDown(f"the brokers did not answer for {timeout:.0f} s during a restore")
            raise


class Tables(TableManager):
    """The tables, with that restore."""

    @property
    def recovery(self) -> Recovery:
        """See TableManager."""
        if self._recovery is None:
            self._recovery = Restore(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery


class App(faust.App):
    """An app with that transport and those queues, which finishes its batches before it gives partitions away.

    `failed`: why a batch did not finish. `collecting_seconds`: how long a batch waits for more. `given_away`: whether
    its partitions are another replica's until it is assigned some again.
    """

    failed: BaseException | None = None
    collecting_seconds = 0.0
    given_away = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.working: set[asyncio.Task[None]] = set()

    async def _consumer_wait_empty(self, consumer: Any, logger: Any) -> None:  # noqa: ARG002 - Faust's
        """Called before partitions are revoked, and at the end, when no more records come in."""
        # The records that a batch has collected become one within this time.
        await asyncio.sleep(2 * self.collecting_seconds)
        late: set[asyncio.Task[None]] = set()
        if self.working:
            _, late = await asyncio.wait(self.working, timeout=self.conf.broker_session_timeout)
        if late and self.failed is None:
            self.failed = DependencyDown("the brokers did not confirm a batch before its partitions were given away")
        self.given_away = True

    async def _on_partitions_assigned(self, assigned: Any, generation_id: int = 0) -> None:
        self.given_away = False
        await super()._on_partitions_assigned(assigned, generation_id)

    def FlowControlQueue(self, maxsize: int | None = None, *, clear_on_resume: bool = False) -> ThrowableQueue[Any]:
        """See RecordQueue."""
        return RecordQueue(maxsize=maxsize, flow_control=self.flow_control, clear_on_resume=clear_on_resume)

    def _new_transport(self) -> TransportT:
        return CommittedTransport(self.conf.broker_consumer, self)


class ConfirmedTable(Table[bytes, bytes]):
    """A table whose changelog records can be awaited."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sent: list[FutureMessage] = []

    def send_changelog(self, *args: Any, **kwargs: Any) -> FutureMessage:
        """See Table."""
        sent = super().send_changelog(*args, **kwargs)
        self._sent.append(sent)
        return sent

    def take_sent(self) -> Sequence[FutureMessage]:
        """The records sent since the last call."""
        sent, self._sent = self._sent, []
        return sent
