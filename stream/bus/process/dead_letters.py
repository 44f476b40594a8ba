"""Dead letters: an event that can never be tagged goes out as it came, with the reason in its headers.

If too many of the last contents become dead letters, the fault is not in the contents, and the worker ends.
"""

import hashlib
import logging
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from tagbus.stream import telemetry
from tagbus.stream.bus.process.stamps import STAGE
from tagbus.stream.bus.processor import Outgoing, RecordOutcome, Source
from tagbus.stream.config import TriageSettings
from tagbus.stream.contract.codec import DEAD_LETTER_HEADERS, dead_letter_headers, source_headers
from tagbus.stream.contract.events import DeadLetter
from tagbus.stream.contract.fields import ID_CHARS, TITLE_CHARS
from tagbus.stream.errors import FieldError, Poison, TooMuchPoison, Untaggable
from tagbus.stream.kafka.message import UNREADABLE
from tagbus.stream.telemetry.traces import parent_of

log = logging.getLogger(__name__)

Headers = tuple[tuple[str, bytes | None], ...]

# Limit of the original headers, in bytes of names and values. With a value of batch.record_bytes (1,000,000) and a
# reason of at most 4,096 characters a record stays below Kafka's default limit of 1,048,588 bytes.
HEADER_BYTES = 16_384
# Limit of a key, in bytes; ids have at most 256 characters.
KEY_BYTES = 8_192
# Headers of an earlier dead letter or result are dropped, so that there is one of each.
_OURS = ("__streams.errors.", "tagbus.")
# Except those with the record's original position, and the one that says that its headers could not be read.
_REPLAYS = DEAD_LETTER_HEADERS["replays"]
REPLAY_SOURCE = "tagbus.replay.source"
# The reason for which `tagbus retag` sent a content again.
RETAG = "tagbus.retag"
_KEPT = frozenset({REPLAY_SOURCE, RETAG, UNREADABLE})
_REPLAYS_DIGITS = 9


@dataclass(frozen=True, slots=True)
class DeadLetterTopic:
    """The topic of a worker's dead letters. `record_bytes`: the largest value that it takes."""

    name: str
    record_bytes: int

    def letter(self, source: Source, error: Poison, attempts: int = 1) -> RecordOutcome:
        """A dead letter: value, key and headers byte for byte as received, and the reason.

        A value that is too large for the topic is cut, with its length and SHA-256 in the headers, and so is a key
        above 8,192 bytes. Headers above 16,384 bytes in total are left out, and a header says so. `attempts`: the
        number of calls in which the record failed.
        """
        record = source.record
        key, key_headers = _key(record.key)
        room = self.record_bytes - len(key or b"")
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
        outgoing = Outgoing(self.name, key, value, headers)
        _log(source, error, letter.exception)
        return RecordOutcome("dead_lettered", (outgoing,), error.stage, source.timestamp, letter.exception)


def _log(source: Source, error: Poison, reason: str) -> None:
    """Log where the record is and the class of its error; the reason itself may quote a content."""
    if log.isEnabledFor(logging.INFO):
        parent = parent_of(source.record.headers)
        key = (source.record.key or b"")[:ID_CHARS].decode(errors="replace")
        extra = {
            "content": key,
            "trace_id": "" if parent is None else parent.trace,
            "topic": source.topic,
            "partition": source.partition,
            "offset": source.offset,
        }
        log.info("a content is set aside: stage=%s reason=%s", error.stage, reason, extra=extra)


def too_large(topic: str, size: int, limit: str) -> Untaggable:
    """The error for a result that is too large for its topic."""
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
    """How often the record was replayed before: the last such header, 0 if it is not a number."""
    for name, value in reversed(headers):
        if name == _REPLAYS:
            return int(value) if value and len(value) <= _REPLAYS_DIGITS and value.isdigit() else 0
    return 0


class PoisonShare:
    """The share of dead letters among the last contents. Belongs to the publish thread."""

    def __init__(self, settings: TriageSettings) -> None:
        self._share = settings.poison_share
        self._window = settings.poison_window
        # The stage that rejected each of the last contents, or nothing.
        self._last: deque[str] = deque()
        self._stages: Counter[str] = Counter()

    def count(self, outcomes: Iterable[RecordOutcome]) -> None:
        """Count a committed batch: even if this raises, its dead letters are published and never read again.

        Stale events, withdrawals and skipped duplicates say nothing about the tagger and do not count. Raises
        TooMuchPoison, but only once the window is full: of the first ten contents of a topic three may well be bad.
        """
        stages = [
            outcome.stage
            for outcome in outcomes
            if outcome.kind == "tagged" or (outcome.kind == "dead_lettered" and outcome.stage != STAGE)
        ]
        self._last.extend(stages)
        self._stages.update(filter(None, stages))
        gone = [self._last.popleft() for _ in range(len(self._last) - self._window)]
        self._stages.subtract(filter(None, gone))
        self._check()

    def _check(self) -> None:
        bad, number = self._stages.total(), len(self._last)
        telemetry.POISON_SHARE.set(bad / number if number else 0.0)
        if number >= self._window and bad > self._share * self._window:
            stages = ", ".join(f"{stage} {count}" for stage, count in self._stages.most_common() if count)
            raise TooMuchPoison(
                f"{bad} of the last {number} contents were set aside ({stages}), more than triage.poison_share = "
                f"{self._share:g}: look at the reasons in the dead letters before it is started again"
            )
