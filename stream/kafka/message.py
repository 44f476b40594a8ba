"""A message of the Kafka client as a record of the contract."""

from confluent_kafka import Message

from tagbus.stream.contract.codec import Record

# Stands alone where the client cannot read a record's headers.
UNREADABLE = "tagbus.headers.unreadable"


def record_of(message: Message) -> Record:
    """Key, value and headers as bytes, as they came."""
    return Record(_raw(message.key()), _raw(message.value()), _headers(message))


def _headers(message: Message) -> tuple[tuple[str, bytes | None], ...]:
    try:
        headers = message.headers()
    except (UnicodeDecodeError, SystemError):
        # A name that is not UTF-8 cannot be read by the client at all; the record itself can.
        return ((UNREADABLE, b"not UTF-8"),)
    if not headers:
        return ()
    pairs = headers.items() if isinstance(headers, dict) else headers
    return tuple((name, _raw(value)) for name, value in pairs)


def _raw(value: str | bytes | None) -> bytes | None:
    """A consumer without deserialisers gives bytes; the client's types say that it might be text."""
    return value.encode() if isinstance(value, str) else value
