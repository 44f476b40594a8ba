"""Topics read to the end that they have now, and records sent with each one confirmed."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from tagbus.stream.config import KafkaSettings, Settings
from tagbus.stream.contract.codec import Record
from tagbus.stream.errors import DependencyDown, TagbusError, UserError
from tagbus.stream.kafka import client
from tagbus.stream.kafka.plain import plain_producer, reader_to_end
from tagbus.stream.kafka.refusal import NO_BROKER, Operation, lacking, locked_out, of_group

SECONDS = 30.0
CHUNK = 500

# What no second try mends: the settings of the topic are wrong.
REFUSED = frozenset(
    {
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.INVALID_CONFIG,
        KafkaError.POLICY_VIOLATION,
        KafkaError.MSG_SIZE_TOO_LARGE,
    }
)


def failed(
    kafka: KafkaSettings, error: KafkaException, what: str, topic: str, operation: Operation = "Read"
) -> TagbusError:
    """The error of ours for one of the client's; `operation` was to be done on the topic."""
    found = client.error_of(error)
    if found.code() in REFUSED:
        return UserError(f"{what}: {found.str()}")
    if found.code() in NO_BROKER and (reason := locked_out(kafka)):
        return reason
    return client.named(found, topic, kafka, operation) or DependencyDown(f"{what}: {found.str()}")


def partitions(
    kafka: KafkaSettings, asked: Consumer | Producer, topic: str, operation: Operation = "Read"
) -> list[int]:
    """The partitions of a topic on which `operation` is to be done.

    Raises UserError when it is not there or Kafka refuses, DependencyDown when no broker answers.
    """
    try:
        found = asked.list_topics(topic, SECONDS).topics[topic]
    except KafkaException as error:
        raise failed(kafka, error, f"no broker answered for topic {topic}", topic, operation) from None
    if found.error is not None:
        raise failed(kafka, KafkaException(found.error), f"topic {topic} cannot be used", topic, operation)
    return sorted(found.partitions)


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a topic holds between two looks at it: next offsets by partition, from `starts` to `ends`."""

    topic: str
    starts: Mapping[int, int]
    ends: Mapping[int, int]

    @property
    def offsets(self) -> int:
        """How many records there are at most."""
        return sum(max(0, end - self.starts[partition]) for partition, end in self.ends.items())

    def after(self, starts: Mapping[int, int]) -> "Stretch":
        """The same, of these partitions only and no earlier than these offsets."""
        later = {partition: max(self.starts[partition], start) for partition, start in starts.items()}
        return Stretch(self.topic, later, {partition: self.ends[partition] for partition in later})


def stretch(settings: Settings, topic: str, since: datetime | None = None) -> Stretch:
    """All that a topic holds now, or what came at `since` or after.

    Raises UserError when it is not there, DependencyDown when no broker answers.
    """
    consumer = reader_to_end(settings)
    try:
        found = [TopicPartition(topic, partition) for partition in partitions(settings.kafka, consumer, topic)]
        marks = {one.partition: consumer.get_watermark_offsets(one, SECONDS) for one in found}
        starts = {partition: low for partition, (low, _) in marks.items()}
        if since is not None:
            asked = [TopicPartition(topic, partition, max(0, int(since.timestamp() * 1000))) for partition in marks]
            # -1: nothing came since.
            told = {one.partition: one.offset for one in consumer.offsets_for_times(asked, SECONDS)}
            starts = {
                partition: told[partition] if told[partition] >= 0 else marks[partition][1] for partition in marks
            }
    except KafkaException as error:
        raise failed(settings.kafka, error, f"no broker answered for topic {topic}", topic) from None
    finally:
        consumer.close()
    return Stretch(topic, starts, {partition: high for partition, (_, high) in marks.items()})


def read(settings: Settings, what: Stretch) -> Iterator[Message]:
    """Every committed record of it, in the order of each partition. Raises DependencyDown when nothing comes."""
    consumer = reader_to_end(settings)
    try:
        left = {partition: end for partition, end in what.ends.items() if what.starts[partition] < end}
        consumer.assign([TopicPartition(what.topic, partition, what.starts[partition]) for partition in left])
        came = time.monotonic()
        while left:
            # `consume` waits for all that it may return, so it waits for the first and takes what else is there.
            first = consumer.consume(1, 0.5)
            for message in first + consumer.consume(CHUNK, 0):
                came = time.monotonic()
                if _belongs(settings.kafka, message, what.topic, left):
                    yield message
            if time.monotonic() - came > SECONDS:
                raise DependencyDown(f"topic {what.topic}: nothing came for {SECONDS:.0f} s before its end")
    finally:
        consumer.close()


def timestamp(message: Message) -> datetime:
    """When a record was made, by its producer's clock or the broker's; the beginning of time where it does not say."""
    kind, milliseconds = message.timestamp()
    return datetime.fromtimestamp(0 if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds / 1000, UTC)


def _belongs(kafka: KafkaSettings, message: Message, topic: str, left: dict[int, int]) -> bool:
    """Whether it is a record before the end of its partition. Takes partitions that are at their end out of `left`.

    The last offset may be a transaction's marker, which is never delivered: then the end of the partition is told.
    """
    partition, offset = message.partition() or 0, message.offset() or 0
    error = message.error()
    if error is not None:
        if error.code() == KafkaError._PARTITION_EOF:
            left.pop(partition, None)
        elif not of_group(error) and (ending := client.named(error, topic, kafka)):
            raise ending
        return False
    end = left.get(partition, 0)
    if offset + 1 >= end:
        left.pop(partition, None)
    return offset < end


class Sending:
    """Records to one topic through an idempotent producer; leaving the block waits until each is confirmed.

    Raises UserError or DependencyDown when one is not, from `send` or at the end.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self._kafka = settings.kafka
        self._topic = topic
        self._producer = plain_producer(settings)
        # Asked first: librdkafka holds the records of a topic that is not there for 30 s before it says so.
        self.partitions: Sequence[int] = partitions(settings.kafka, self._producer, topic, "Write")
        # An idempotent producer that may write nowhere ends with a fatal error that names no topic.
        if refused := lacking(settings.kafka, [("Write", topic)]):
            raise refused
        self._errors: list[KafkaError] = []
        self.confirmed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = self._producer.flush(SECONDS)
        if error is not None:
            return
        self._check()
        if left:
            raise DependencyDown(f"{self._kafka.brokers} did not take {left} records within {SECONDS:.0f} s")

    def send(self, record: Record, partition: int = -1) -> None:
        """Send one; -1 leaves the partition to the key."""
        while True:
            try:
                self._producer.produce(
                    self._topic, record.value, record.key, partition, self._report, headers=list(record.headers)
                )
                break
            except BufferError:
                self._producer.poll(0.5)
            except KafkaException as error:
                raise self._failed(error) from None
        self._producer.poll(0)
        self._check()

    def _report(self, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self.confirmed += 1
        else:
            self._errors.append(error)

    def _check(self) -> None:
        if self._errors:
            raise self._failed(KafkaException(self._errors[0]))

    def _failed(self, error: KafkaException) -> TagbusError:
        return failed(self._kafka, error, f"not all records reached {self._topic}", self._topic, "Write")
