"""The maximum size of a record, `max.message.bytes` of its topic, and the size that the broker compares with it."""

from collections.abc import Sized
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from tagbus.stream.config import KafkaSettings, Settings
from tagbus.stream.contract.codec import Record
from tagbus.stream.contract.field_errors import invalid
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.access import LISTEN_SECONDS
from tagbus.stream.kafka.admin.layout import BYTES, KAFKA_BYTES, RECORD_ROOM
from tagbus.stream.kafka.admin.topics import configurations

# Message format v2 (KIP-98): the header of a batch; attributes, timestamp delta and offset delta of its first record.
_BATCH: Final = 61
_RECORD: Final = 3
_COMPRESSION: Final = ("compression.type", "compression.codec")


@dataclass(frozen=True, slots=True)
class SizeLimit:
    """The largest batch that a topic accepts, in bytes; `source`: the origin of the limit, for messages."""

    most: int
    source: str

    def check(self, record: Record) -> None:
        """Raises InvalidEvent for a record that is too large even alone in its batch."""
        if (size := batch_bytes(record)) > self.most:
            raise invalid("value", f"a record of {size} bytes", f"at most {self.most} bytes, {self.source}")


def expected_limit(settings: Settings) -> SizeLimit:
    """The limit of a topic as `tagbus topics create` makes it, without asking a broker."""
    if (most := settings.batch.record_bytes + RECORD_ROOM) > KAFKA_BYTES:
        return SizeLimit(most, f"{BYTES} by batch.record_bytes")
    return SizeLimit(KAFKA_BYTES, f"Kafka's default of {BYTES}")


def topic_limit(kafka: KafkaSettings, topic: str) -> SizeLimit | None:
    """The limit of a topic. None if it is not disclosed (DescribeConfigs), or if the client compresses, because the
    limit applies to compressed batches."""
    if any(kafka.options.get(name, "none") != "none" for name in _COMPRESSION):
        return None
    admin = clients.quiet_admin(kafka, lambda _: None)
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        cluster = admin.list_topics(timeout=LISTEN_SECONDS)
    except KafkaException:
        return None
    found = configurations(admin, cluster, [resource], LISTEN_SECONDS)
    return SizeLimit(int(found[resource][BYTES]), f"{BYTES} of topic {topic}") if resource in found else None


def batch_bytes(record: Record) -> int:
    """The size of an uncompressed batch that holds only this record: the size that the broker compares with its
    limit."""
    headers = _varint(len(record.headers)) + sum(
        _field(name.encode()) + _field(value) for name, value in record.headers
    )
    body = _RECORD + _field(record.key) + _field(record.value) + headers
    return _BATCH + _varint(body) + body


def _field(value: Sized | None) -> int:
    return _varint(-1) if value is None else _varint(len(value)) + len(value)


def _varint(number: int) -> int:
    """The length in bytes of a zigzag-encoded number: 7 bits a byte."""
    zigzag = number * 2 if number >= 0 else -number * 2 - 1
    return max(1, (zigzag.bit_length() + 6) // 7)
