"""A message of the Kafka client: its position, its timestamp, and its contract record."""

import logging
from datetime import UTC, datetime

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from tagbus.stream.contract.codec import Record
from tagbus.stream.errors import DependencyDown
from tagbus.stream.kafka.logs import RateLimit

# Topic and partition number.
Partition = tuple[str, int]

# The only header of a record whose headers the client cannot decode.
UNREADABLE = "tagbus.headers.unreadable"
# The last millisecond of the year 9999. Producers may set any timestamp: microseconds instead of Kafka's milliseconds
# give the year 58000.
LATEST = 253_402_300_799_999

log = logging.getLogger(__name__)
# One line per topic and interval.
log.addFilter(RateLimit())


def record_of(message: Message) -> Record:
    """Key, value and headers as the original bytes."""
    key, value = message.key(), message.value()
    # Checked here, not in a function: it is called for every record. See _raw.
    return Record(
        key.encode() if isinstance(key, str) else key,
        value.encode() if isinstance(value, str) else value,
        _headers(message),
    )


def partition_of(message: Message) -> Partition:
    """The partition of a message. Raises DependencyDown for an error without one."""
    topic, partition = message.topic(), message.partition()
    if topic is None or partition is None:
        raise DependencyDown(f"a message without a partition: {message.error()}")
    return topic, partition


def offset_of(message: Message) -> int:
    """The offset of a message. Raises DependencyDown for an error without one."""
    offset = message.offset()
    if offset is None:
        raise DependencyDown(f"a message without an offset: {message.error()}")
    return offset


def recorded(message: Message) -> float | None:
    """The timestamp of a record, by the producer's clock or the broker's, in Unix seconds; None if it has none.

    A timestamp before 1970 or after 9999 is ignored, with a warning.
    """
    kind, milliseconds = message.timestamp()
    if 0 <= milliseconds <= LATEST:
        return None if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds / 1000
    if kind != TIMESTAMP_NOT_AVAILABLE:
        log.warning(
            "topic %s: record %s:%s has the timestamp %d, expected milliseconds from 1970 to 9999; it is ignored",
            message.topic(),
            message.partition(),
            message.offset(),
            milliseconds,
        )
    return None


def timestamp(message: Message) -> datetime:
    """The same as a date; the epoch if there is none."""
    return datetime.fromtimestamp(recorded(message) or 0, UTC)


def _headers(message: Message) -> tuple[tuple[str, bytes | None], ...]:
    try:
        headers = message.headers()
    except (UnicodeDecodeError, SystemError):
        # The client cannot decode a header name that is not UTF-8; the record itself is readable.
        return ((UNREADABLE, b"not UTF-8"),)
    if not headers:
        return ()
    pairs = headers.items() if isinstance(headers, dict) else headers
    return tuple((name, _raw(value)) for name, value in pairs)


def _raw(value: str | bytes | None) -> bytes | None:
    """A consumer without deserializers returns bytes; the client's type hints also allow str."""
    return value.encode() if isinstance(value, str) else value
