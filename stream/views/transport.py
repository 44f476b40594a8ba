"""Faust's transport and tables, where they do not do as the views need.

- It reads uncommitted records unless it works in transactions. `tagged` is written in transactions.
- What a table sends to its changelog is flushed for at most 0.1 s before offsets are committed. Here it can be awaited.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import faust
from faust.tables.table import Table
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP
from faust.types.transports import TransportT
from faust.types.tuples import FutureMessage


class CommittedThread(AIOKafkaConsumerThread):
    """Reads what is committed."""

    def _create_worker_consumer(self, transport: Transport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # There is no setting of it; the consumer reads it as it starts.
        consumer._isolation_level = "read_committed"
        return consumer


class CommittedConsumer(Consumer):
    """See CommittedThread. After a failure it commits nothing."""

    def _new_consumer_thread(self) -> CommittedThread:
        return CommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:  # noqa: FBT001, FBT002 - Faust's
        if isinstance(self.app, App) and self.app.failed is not None:
            return False
        return await super()._commit_offsets(offsets, start_new_transaction)


class CommittedTransport(Transport):
    """See CommittedThread."""

    Consumer = CommittedConsumer


class App(faust.App):
    """An app with that transport. `failed`: why a batch was not finished."""

    failed: BaseException | None = None

    def _new_transport(self) -> TransportT:
        return CommittedTransport(self.conf.broker_consumer, self)


class ConfirmedTable(Table[bytes, bytes]):
    """A table whose records on the changelog can be awaited."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sent: list[FutureMessage] = []

    def send_changelog(self, *args: Any, **kwargs: Any) -> FutureMessage:
        """See Table."""
        sent = super().send_changelog(*args, **kwargs)
        self._sent.append(sent)
        return sent

    def take_sent(self) -> Sequence[FutureMessage]:
        """Those that were sent since the last call."""
        sent, self._sent = self._sent, []
        return sent
