"""A message of the Kafka client: where it stands, when it was made, and the record of the contract in it."""

from datetime import UTC, datetime

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from tagbus.stream.contract.codec import Record
from tagbus.stream.errors import DependencyDown

# Topic and number.
Partition = tuple[str, int]

# The only header of a record whose headers the client cannot read.
UNREADABLE = "tagbus.headers.unreadable"


def record_of(message: Message) -> Record:
    """Key, value and headers as bytes, as they came."""
    return Record(_raw(message.key()), _raw(message.value()), _headers(message))


def partition_of(message: Message) -> Partition:
    """The partition of a message. Raises DependencyDown for an error that belongs to none."""
    topic, partition = message.topic(), message.partition()
    if topic is None or partition is None:
        raise DependencyDown(f"a message without a partition: {message.error()}")
    return topic, partition


def offset_of(message: Message) -> int:
    """The offset of a message. Raises DependencyDown for an error that has none."""
    offset = message.offset()
    if offset is None:
        raise DependencyDown(f"a message without an offset: {message.error()}")
    return offset


def timestamp(message: Message) -> datetime:
    """When a record was made, by its producer's clock or the broker's; the epoch where it does not say."""
    kind, milliseconds = message.timestamp()
    return datetime.fromtimestamp(0 if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds / 1000, UTC)


def _headers(message: Message) -> tuple[tuple[str, bytes | None], ...]:
    try:
        headers = message.headers()
    except (UnicodeDecodeError, SystemError):
        # The client cannot read a header's name that is not UTF-8; it can read the record.
        return ((UNREADABLE, b"not UTF-8"),)
    if not headers:
        return ()
    pairs = headers.items() if isinstance(headers, dict) else headers
    return tuple((name, _raw(value)) for name, value in pairs)


def _raw(value: str | bytes | None) -> bytes | None:
    """A consumer without deserialisers returns bytes; the client's types say that it may be text."""
    return value.encode() if isinstance(value, str) else value
