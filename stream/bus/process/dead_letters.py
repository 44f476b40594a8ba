"""Dead letters: an event that can never be tagged goes out as it came, with the reason in its headers."""

import hashlib

from tagbus.stream.bus.in_flight import Outgoing, RecordOutcome, Source
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import DEAD_LETTER_HEADERS, dead_letter_headers, source_headers
from tagbus.stream.contract.events import DeadLetter
from tagbus.stream.contract.fields import TITLE_CHARS
from tagbus.stream.errors import FieldError, Poison, Untaggable
from tagbus.stream.kafka.message import UNREADABLE

Headers = tuple[tuple[str, bytes | None], ...]

# Of the original headers, in bytes of names and values. With the value at batch.record_bytes (1,000,000) and the
# reason (4,096 characters at most) a record stays below Kafka's default of 1,048,588 bytes.
HEADER_BYTES = 16_384
# Of a key, in bytes; ids have at most 256 characters.
KEY_BYTES = 8_192
# Headers of an earlier dead letter or result: of each there shall be one.
_OURS = ("__streams.errors.", "tagbus.")
# But for those that say where the record was before, and that its headers were not read.
_REPLAYS = DEAD_LETTER_HEADERS["replays"]
REPLAY_SOURCE = "tagbus.replay.source"
# Why it was sent through again by `tagbus retag`.
RETAG = "tagbus.retag"
_KEPT = frozenset({REPLAY_SOURCE, RETAG, UNREADABLE})
_REPLAYS_DIGITS = 9


def dead_letter(settings: Settings, source: Source, error: Poison, attempts: int = 1) -> RecordOutcome:
    """The verdict that sets a record aside: value byte for byte, key and headers as they came.

    A value that is too large for the topic is cut, with its length and SHA-256 in the headers; a key above 8,192
    bytes likewise; headers above 16,384 bytes in total are left out, and a header says so.
    """
    record = source.record
    key, key_headers = _key(record.key)
    room = settings.batch.record_bytes - len(key or b"")
    value, value_bytes, value_sha256 = record.value, None, None
    if value is not None and len(value) > room:
        value_bytes, value_sha256 = len(value), hashlib.sha256(value).hexdigest()
        value = value[:room]
    letter = DeadLetter(
        topic=source.topic,
        partition=source.partition,
        offset=source.offset,
        exception=type(error).__name__,
        message=str(error)[:TITLE_CHARS],
        stage=error.stage,
        attempts=attempts,
        replays=_replays(record.headers),
        value_bytes=value_bytes,
        value_sha256=value_sha256,
    )
    headers = (
        *_originals(record.headers),
        *key_headers,
        *dead_letter_headers(letter),
        *source_headers(source.topic, source.partition, source.offset),
    )
    outgoing = Outgoing(settings.topics.dead_letters, key, value, headers)
    return RecordOutcome("dead_lettered", (outgoing,), error.stage, source.timestamp)


def too_large(topic: str, size: int, limit: str) -> Untaggable:
    """The error of a result that its topic does not take."""
    return Untaggable("publish", (FieldError(topic, f"a record of {size} bytes", limit),))


def _key(key: bytes | None) -> tuple[bytes | None, Headers]:
    if key is None or len(key) <= KEY_BYTES:
        return key, ()
    digest = hashlib.sha256(key).hexdigest()
    return key[:KEY_BYTES], (("tagbus.key.bytes", b"%d" % len(key)), ("tagbus.key.sha256", digest.encode()))


def _originals(headers: Headers) -> Headers:
    size = sum(len(name.encode(errors="replace")) + len(value or b"") for name, value in headers)
    if size > HEADER_BYTES:
        return (("tagbus.headers.dropped", f"{len(headers)} headers of {size} bytes".encode()),)
    return tuple((name, value) for name, value in headers if name in _KEPT or not name.startswith(_OURS))


def _replays(headers: Headers) -> int:
    """How often the record was sent back before: the last header that says so, 0 where it is no number."""
    for name, value in reversed(headers):
        if name == _REPLAYS:
            return int(value) if value and len(value) <= _REPLAYS_DIGITS and value.isdigit() else 0
    return 0
