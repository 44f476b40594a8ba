"""Decode records to events and encode them back. Bytes in, bytes out, independent of the Kafka client.

A value is JSON in UTF-8, plain or as a CloudEvent (see cloudevents.py), optionally in the wire format of Confluent's
schema registry. A record without a value is a tombstone. Of duplicate fields in an object the last one wins; unknown
fields are ignored.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, get_args

from pydantic import ValidationError

from tagbus.stream.contract import cloudevents
from tagbus.stream.contract.cloudevents import Attributes, Envelope, Headers
from tagbus.stream.contract.decision import Decision
from tagbus.stream.contract.events import Content, DeadLetter, Exemplar, Knowledge, Tag, TaggedContent, exemplar_key
from tagbus.stream.contract.field_errors import STAGE, invalid, poison, undecodable
from tagbus.stream.contract.fields import ID_CHARS, Event, Source
from tagbus.stream.contract.wrapped import wrapped
from tagbus.stream.errors import FieldError, InvalidEvent, shorten

# A text of 500,000 characters takes 3 MB if every one is escaped as \uXXXX, and 2.7 MB as UTF-8 in base64; the other
# fields fit into the rest. Larger values are rejected before parsing.
VALUE_BYTES = 4_000_000
SOURCES: tuple[Source, ...] = get_args(Source)
EXEMPLAR_KEY_CHARS = ID_CHARS + max(len(f"/{source}") for source in SOURCES)

# Confluent's wire format: a byte 0, four bytes of schema id, then the JSON. (The list of message indexes that may
# follow the id is specific to Protobuf.) No JSON starts with a byte 0.
_MAGIC = b"\0"
_ID_BYTES = 4

SOURCE_HEADERS = ("tagbus.source.topic", "tagbus.source.partition", "tagbus.source.offset")
# Dead-letter header names by field of DeadLetter; five are those of Kafka Streams (KIP-1034).
DEAD_LETTER_HEADERS = {
    "exception": "__streams.errors.exception",
    "message": "__streams.errors.message",
    "topic": "__streams.errors.topic",
    "partition": "__streams.errors.partition",
    "offset": "__streams.errors.offset",
    "stage": "tagbus.stage",
    "attempts": "tagbus.attempts",
    "replays": "tagbus.replays",
    "value_bytes": "tagbus.value.bytes",
    "value_sha256": "tagbus.value.sha256",
}

Keyed = Content | Tag | Exemplar | Knowledge | TaggedContent | Decision
E = TypeVar("E", bound=Event)


# Not frozen, like everything created per content: frozen takes three times as long, 0.2 µs more.
@dataclass(slots=True)
class Record:
    """A Kafka record, as bytes."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A record without a value. `key` as text: a content id, a tag id, or `id/source` of an exemplar."""

    key: str


@dataclass(frozen=True, slots=True)
class Origin:
    """The source position of a record that tagbus produced."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class _Topic(Generic[E]):
    """How to decode the records of one topic."""

    model: type[E]
    envelope: type[Envelope[E]]
    key_of: Callable[[E], str]
    key_chars: int = ID_CHARS
    keyless: bool = False


_CONTENT = _Topic(Content, Envelope[Content], lambda event: event.id, keyless=True)
_TAG = _Topic(Tag, Envelope[Tag], lambda event: event.id)
_EXEMPLAR = _Topic(Exemplar, Envelope[Exemplar], lambda event: event.key, EXEMPLAR_KEY_CHARS)
_KNOWLEDGE = _Topic(Knowledge, Envelope[Knowledge], lambda event: event.id)
_TAGGED = _Topic(TaggedContent, Envelope[TaggedContent], lambda event: event.id)
_DECISION = _Topic(Decision, Envelope[Decision], lambda event: event.id)


def decode_content(record: Record) -> Content | Tombstone:
    """Decode a record of `content`. Its key is optional, since the value holds the id. A missing time defaults to the
    CloudEvent's.

    Raises Undecodable or InvalidEvent, as every decode_ function does.
    """
    return _decode(record, _CONTENT)


def decode_tag(record: Record) -> Tag | Tombstone:
    """Decode a record of `tags`."""
    return _decode(record, _TAG)


def decode_exemplar(record: Record) -> Exemplar | Tombstone:
    """Decode a record of `exemplars`. Its key is `id/people` or `id/machine`."""
    found = _decode(record, _EXEMPLAR)
    if isinstance(found, Tombstone):
        split_exemplar_key(found.key)
    return found


def decode_knowledge(record: Record) -> Knowledge | Tombstone:
    """Decode a record of `knowledge`."""
    return _decode(record, _KNOWLEDGE)


def decode_tagged(record: Record) -> TaggedContent | Tombstone:
    """Decode a record of `tagged`."""
    return _decode(record, _TAGGED)


def decode_decision(record: Record) -> Decision | Tombstone:
    """Decode a record of `feedback`."""
    return _decode(record, _DECISION)


# The decoder of each topic.
DECODERS: Mapping[str, Callable[[Record], Keyed | Tombstone]] = {
    "content": decode_content,
    "tags": decode_tag,
    "exemplars": decode_exemplar,
    "knowledge": decode_knowledge,
    "tagged": decode_tagged,
    "feedback": decode_decision,
}


def parse(value: bytes, model: type[E]) -> E:
    """Parse an event from plain JSON without a record, as on a line of a file. Raises Undecodable or InvalidEvent."""
    _check_size(value)
    try:
        # What model_validate_json calls: its argument checks take 0.4 µs, a fifth of the total.
        event: E = model.__pydantic_validator__.validate_json(value)
        return event
    except ValidationError as error:
        raise wrapped(value) or poison(error, model) from None


def encode(event: Event, schema: int | None = None) -> bytes:
    """Encode an event as compact JSON in UTF-8; with a schema id, in Confluent's wire format."""
    # What model_dump_json calls: pydantic_core's to_json looks it up first, a sixth of the total.
    value = event.__pydantic_serializer__.to_json(event)
    return value if schema is None else _MAGIC + schema.to_bytes(_ID_BYTES) + value


def unframed(value: bytes) -> bytes:
    """Strip the prefix of Confluent's wire format; the schema id is ignored. Raises Undecodable."""
    if not value.startswith(_MAGIC):
        return value
    if len(value) <= len(_MAGIC) + _ID_BYTES:
        raise undecodable("value", shorten(value), "a byte 0, four bytes of a schema's id, then JSON")
    return value[len(_MAGIC) + _ID_BYTES :]


def event_key(event: Keyed) -> str:
    """The key of an event's record."""
    return event.key if isinstance(event, Exemplar) else event.id


def encode_record(event: Keyed) -> Record:
    """The record of an event, without headers."""
    return Record(event_key(event).encode(), encode(event))


def split_exemplar_key(key: str) -> tuple[str, Source]:
    """Split the key of an exemplar's record into content id and source. Raises InvalidEvent."""
    content_id, _, word = key.rpartition("/")
    for source in SOURCES:
        if word == source and 0 < len(content_id) <= ID_CHARS:
            return content_id, source
    raise invalid("key", shorten(key), " or ".join(f"`{exemplar_key('id', source)}`" for source in SOURCES))


def source_headers(topic: str, partition: int, offset: int) -> list[tuple[str, bytes]]:
    """Headers of every outgoing record: the record that it was produced from."""
    values = (topic, str(partition), str(offset))
    return [(name, value.encode()) for name, value in zip(SOURCE_HEADERS, values, strict=True)]


def dead_letter_headers(letter: DeadLetter) -> list[tuple[str, bytes]]:
    """The headers that a dead letter adds, after those of the original record; every value is text."""
    fields = ((name, getattr(letter, field)) for field, name in DEAD_LETTER_HEADERS.items())
    return [(name, str(value).encode(errors="backslashreplace")) for name, value in fields if value is not None]


def read_dead_letter(headers: Headers) -> DeadLetter:
    """Read the reason from a dead letter's headers; of duplicates the last one wins. Raises InvalidEvent."""
    found = _last_texts(headers)
    values = {field: found[name] for field, name in DEAD_LETTER_HEADERS.items() if name in found}
    try:
        return DeadLetter.model_validate_strings(values)
    except ValidationError as error:
        raise _renamed(poison(error, DeadLetter).errors) from None


def read_source(headers: Headers) -> Origin:
    """The source position of a record on `tagged` or on the dead-letter topic. Raises InvalidEvent.

    A dead letter's own headers take precedence: the others may have come with the rejected record.
    """
    found = _last_texts(headers)
    names = tuple(DEAD_LETTER_HEADERS[field] for field in ("topic", "partition", "offset"))
    if names[0] not in found:
        names = SOURCE_HEADERS
    topic, partition, offset = (found.get(name) for name in names)
    if not topic:
        raise invalid(names[0], "(missing)", "the topic that the record comes from")
    return Origin(topic, _number(names[1], partition), _number(names[2], offset))


def _decode(record: Record, topic: _Topic[E]) -> E | Tombstone:
    key = _key(record.key, topic.key_chars)
    if record.value is None:
        if key is None:
            raise invalid("key", "(missing)", "the key that the tombstone is for")
        return Tombstone(key)
    if key is None and not topic.keyless:
        raise invalid("key", "(missing)", "the id of the event: the topic is compacted by key")
    event = _event(record, record.value, topic)
    if key is not None and key != (right := topic.key_of(event)):
        raise invalid("key", shorten(key), f"{shorten(right)}, as the value says")
    return event


def _key(raw: bytes | None, most: int) -> str | None:
    if raw is None:
        return None
    try:
        key = raw.decode()
    except UnicodeDecodeError:
        raise undecodable("key", shorten(raw), "UTF-8") from None
    if not 0 < len(key) <= most:
        raise invalid("key", shorten(key), f"a string of 1 to {most} characters")
    return key


def _event(record: Record, value: bytes, topic: _Topic[E]) -> E:
    value = unframed(value)
    if not record.headers:
        return parse(value, topic.model)
    _check_size(value)
    match cloudevents.mode(record.headers):
        case "plain":
            return parse(value, topic.model)
        case "binary":
            attributes = cloudevents.header_attributes(record.headers)
            return _timed(parse(value, topic.model), attributes)
        case "structured":
            return _unwrap(value, topic)


def _unwrap(value: bytes, topic: _Topic[E]) -> E:
    try:
        envelope = topic.envelope.model_validate_json(value)
    except ValidationError as error:
        raise poison(error, topic.envelope) from None
    if envelope.data is not None:
        return _timed(envelope.data, envelope)
    text = envelope.data_base64 or ""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise undecodable("data_base64", shorten(text), "base64 (RFC 4648, section 4)") from None
    try:
        return _timed(topic.model.model_validate_json(data), envelope)
    except ValidationError as error:
        raise poison(error, topic.model, "data_base64.") from None


def _timed(event: E, attributes: Attributes) -> E:
    if isinstance(event, Content) and event.time is None and attributes.time is not None:
        return event.model_copy(update={"time": attributes.time})
    return event


def _check_size(value: bytes) -> None:
    if len(value) > VALUE_BYTES:
        raise invalid("value", f"a value of {len(value)} bytes", f"at most {VALUE_BYTES} bytes")


def _last_texts(headers: Headers) -> dict[str, str]:
    return {name: raw.decode(errors="replace") for name, raw in headers if raw is not None}


def _number(name: str, text: str | None) -> int:
    # Offsets are int64; the length is checked first because int() of a megabyte of digits is slow.
    if text is not None and len(text) <= 19 and text.isascii() and text.isdecimal():
        return int(text)
    raise invalid(name, "(missing)" if text is None else shorten(text), "a whole number of at least 0, as text")


def _renamed(errors: tuple[FieldError, ...]) -> InvalidEvent:
    """The same errors, with fields renamed to their headers."""
    names = DEAD_LETTER_HEADERS
    renamed = (FieldError(names.get(wrong.field, wrong.field), wrong.value, wrong.expected) for wrong in errors)
    return InvalidEvent(STAGE, tuple(renamed))
