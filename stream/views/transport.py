"""Overrides of Faust's transport and tables for the views.

- It reads uncommitted records unless it works in transactions. `tagged` is written in transactions.
- What a table sends to its changelog is flushed for at most 0.1 s before offsets are committed. Here it can be awaited.
- Its sensors do not say how far it is behind where transaction markers end a partition.
- It gives partitions away while a batch is in progress. A row that is written then may follow one of the next owner in
  the changelog, and replaces it wherever the table is restored.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import faust
from faust.tables.table import Table
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP
from faust.types.transports import TransportT
from faust.types.tuples import FutureMessage, Message

from tagbus.stream.errors import DependencyDown


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
    """See CommittedThread. After a failure it commits nothing."""

    _thread: CommittedThread

    def _new_consumer_thread(self) -> CommittedThread:
        return CommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:  # noqa: FBT001, FBT002 - Faust's
        if isinstance(self.app, App) and self.app.failed is not None:
            return False
        return await super()._commit_offsets(offsets, start_new_transaction)

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


class App(faust.App):
    """An app with that transport, which finishes its batches before it gives partitions away.

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
