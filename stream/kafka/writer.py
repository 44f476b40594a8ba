"""Publish records of a person or a command, each confirmed by the broker."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaError, Message

from tagbus.stream.config import KafkaSettings
from tagbus.stream.contract.codec import Record
from tagbus.stream.errors import DependencyDown, TagbusError
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.access import failure, missing_rights
from tagbus.stream.kafka.errors import RAISED
from tagbus.stream.kafka.limits import topic_limit
from tagbus.stream.kafka.metadata import list_partitions

# How long no record may be confirmed before the rest is given up; a slow broker or a quota takes time.
FLUSH_SECONDS = 30.0


class TopicWriter:
    """Writes to one topic through an idempotent producer; leaving the block waits until every record is confirmed.

    Raises UserError or DependencyDown for an unconfirmed record, from `send` or at the end.

    `limit`: the topic's size limit, if it is known. `unconfirmed`: the numbers, from 0, of the sent records that no
    broker has confirmed.
    """

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._kafka = kafka
        self._topic = topic
        self.limit = topic_limit(kafka, topic)
        self._producer = clients.plain_producer(kafka, None if self.limit is None else self.limit.most)
        # Check first: librdkafka queues records for a missing topic for 30 s before it fails them.
        list_partitions(self._producer, kafka, topic, "Write")
        # An idempotent producer without any write permission fails with a fatal error that names no topic.
        if refused := missing_rights(kafka, [("Write", topic)]):
            raise refused
        self._errors: list[KafkaError] = []
        self.sent = 0
        self.confirmed = 0
        self.unconfirmed: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._explained():
            left = self._flush()
        if error is not None:
            return
        self._check()
        if left:
            raise DependencyDown(
                f"{self._kafka.brokers} did not confirm {left} records, and none for {FLUSH_SECONDS:.0f} s"
            )

    def send(self, record: Record, partition: int = -1) -> None:
        """Send one record; -1 partitions by key."""
        headers: list[tuple[str, str | bytes | None]] = list(record.headers)
        report = partial(self._report, self.sent)
        self.unconfirmed.add(self.sent)
        self.sent += 1
        with self._explained():
            while True:
                try:
                    self._producer.produce(self._topic, record.value, record.key, partition, report, headers=headers)
                    break
                except BufferError:
                    self._producer.poll(0.5)
            self._producer.poll(0)
        self._check()

    def _flush(self) -> int:
        """Wait until every record is confirmed or has failed; returns how many are pending."""
        while True:
            before = len(self.unconfirmed), len(self._errors)
            left = self._producer.flush(FLUSH_SECONDS)
            if not left or before == (len(self.unconfirmed), len(self._errors)):
                return left

    def _report(self, number: int, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self.confirmed += 1
            self.unconfirmed.discard(number)
        else:
            self._errors.append(error)

    def _check(self) -> None:
        if self._errors:
            raise self._failed(self._errors[0])

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except RAISED as raised:
            raise self._failed(raised) from None

    def _failed(self, raised: object) -> TagbusError:
        return failure(raised, self._kafka, f"not all records reached {self._topic}", self._topic, "Write")
