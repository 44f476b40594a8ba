"""Which dead letters may be sent back, and why the others may not. It reads topics and writes nothing.

An event is known by where it first came, topic, partition and offset, and by its key: a letter of an event that was
sent back before names that place in `tagbus.replay.source`.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from confluent_kafka import Message

from tagbus.stream.bus.process.dead_letters import REPLAY_SOURCE
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import (
    DEAD_LETTER_HEADERS,
    SOURCE_HEADERS,
    Origin,
    Record,
    decode_content,
    read_dead_letter,
    read_source,
)
from tagbus.stream.contract.events import Content, DeadLetter
from tagbus.stream.errors import Poison, Stale
from tagbus.stream.kafka.message import UNREADABLE, record_of, timestamp
from tagbus.stream.kafka.ranges import OffsetRange, current_range, read_all, read_range

REPLAYS = DEAD_LETTER_HEADERS["replays"]
# What a letter says where something of the event was left out: it can no longer be sent as it came.
CUT = frozenset(
    {
        DEAD_LETTER_HEADERS["value_bytes"],
        "tagbus.key.bytes",
        "tagbus.headers.dropped",
        UNREADABLE,
    }
)
OWN = frozenset({*DEAD_LETTER_HEADERS.values(), *SOURCE_HEADERS, *CUT, "tagbus.key.sha256", REPLAY_SOURCE})
# How far the clocks of two workers may be apart.
SKEW = timedelta(minutes=5)

Event = tuple[Origin, bytes | None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters are asked for: a class, a stage or a part of the message; when it was set aside."""

    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def takes(self, letter: DeadLetter, time: datetime) -> bool:
        """Whether this letter is asked for."""
        if (self.since is not None and time < self.since) or (self.until is not None and time > self.until):
            return False
        if self.reason is None or self.names(letter):
            return True
        return self.reason.casefold() in letter.message.casefold()

    def names(self, letter: DeadLetter) -> bool:
        """Whether the reason is the letter's class or stage itself."""
        return self.reason in {letter.exception, letter.stage}


@dataclass(frozen=True, slots=True)
class Letter:
    """What is kept of a dead letter; its value stays where it is.

    `place`: partition and offset on the dead-letter topic; `first` and `last`: where the event came first, and where
    the one came that failed; `verdict`: why it is left out, by itself, or empty.
    """

    place: tuple[int, int]
    first: Origin
    last: Origin
    key: bytes | None
    id: bytes | None
    time: datetime
    why: str
    replays: int
    verdict: str

    @property
    def event(self) -> Event:
        """Whose letter it is."""
        return self.first, self.key


@dataclass(frozen=True, slots=True)
class Choice:
    """The letters that may be sent back, in the order of their events, and how many are left out for which reason."""

    letters: list[Letter]
    left_out: Counter[str]


def choose(settings: Settings, wanted: Wanted) -> Choice:
    """Sort the dead letters. Raises UserError where a topic is not there, DependencyDown without a broker."""
    left_out: Counter[str] = Counter()
    content = current_range(settings.kafka, settings.topics.content)
    chosen: dict[Event, Letter] = {}
    for event, letter in _newest(settings, wanted, left_out).items():
        verdict = letter.verdict or _placed(settings, letter, content.ends)
        if verdict:
            left_out[verdict] += 1
        else:
            chosen[event] = letter
    for verdict, gone in (
        ("published since", _published(settings, chosen.values())),
        ("sent back already", _sent_back(settings, chosen, content)),
    ):
        left_out[verdict] += sum(chosen.pop(event, None) is not None for event in gone)
    letters = sorted(chosen.values(), key=lambda letter: (letter.first.partition, letter.first.offset))
    return Choice(letters, +left_out)


def originals(record: Record) -> tuple[tuple[str, bytes | None], ...]:
    """The headers that the event came with."""
    return tuple((name, value) for name, value in record.headers if name not in OWN)


def _newest(settings: Settings, wanted: Wanted, left_out: Counter[str]) -> dict[Event, Letter]:
    """The newest letter of each event, among them those that are not asked for: they stand for the older ones."""
    found: dict[Event, Letter] = {}
    for message in read_range(
        settings.kafka, current_range(settings.kafka, settings.topics.dead_letters, wanted.since)
    ):
        try:
            letter = _letter(message, wanted)
        except Poison:
            left_out["not of tagbus"] += 1
            continue
        older = found.get(letter.event)
        if older is None or (older.replays, older.time) <= (letter.replays, letter.time):
            found[letter.event] = letter
    return found


def _letter(message: Message, wanted: Wanted) -> Letter:
    record, time = record_of(message), timestamp(message)
    told = read_dead_letter(record.headers)
    last = Origin(told.topic, told.partition, told.offset)
    return Letter(
        place=(message.partition() or 0, message.offset() or 0),
        first=_replayed(record) or last,
        last=last,
        key=record.key,
        id=_id(record),
        time=time,
        why=f"{told.exception} at {told.stage}: {told.message}"[:120],
        replays=told.replays,
        verdict=_verdict(record, told, wanted, time),
    )


def _verdict(record: Record, told: DeadLetter, wanted: Wanted, time: datetime) -> str:
    if not wanted.takes(told, time):
        return "not asked for"
    if told.exception == Stale.__name__ and not wanted.names(told):
        return "stale"
    if any(name in CUT for name, _ in record.headers):
        return "cut"
    return ""


def _placed(settings: Settings, letter: Letter, partitions: Collection[int]) -> str:
    """Of another topic: nobody here knows where its results are, so nobody can tell whether it has one."""
    if letter.last.topic != settings.topics.content:
        return "of another topic"
    return "" if letter.last.partition in partitions else "of a partition that is gone"


def _published(settings: Settings, letters: Collection[Letter]) -> set[Event]:
    """Those whose content has a result, or a withdrawal, that is newer than the letter; by id, or by the very place."""
    if not letters:
        return set()
    by_id: dict[bytes, list[Letter]] = {}
    for letter in letters:
        if letter.id is not None:
            by_id.setdefault(letter.id, []).append(letter)
    by_place = {letter.last: letter for letter in letters}
    since = min(letter.time for letter in letters) - SKEW
    found: set[Event] = set()
    for message in read_all(settings.kafka, settings.topics.tagged, since):
        record = record_of(message)
        try:
            source = read_source(record.headers)
        except Poison:
            continue
        same = by_id.get(record.key or b"", [])
        found.update(letter.event for letter in same if _after(source, timestamp(message), letter))
        if source in by_place:
            found.add(by_place[source].event)
    return found


def _after(source: Origin, time: datetime, letter: Letter) -> bool:
    """In one partition the order is known; between two the clocks must do."""
    if (source.topic, source.partition) == (letter.last.topic, letter.last.partition):
        return source.offset >= letter.last.offset
    return time > letter.time


def _sent_back(settings: Settings, letters: Mapping[Event, Letter], content: OffsetRange) -> set[Event]:
    """Those that stand on `content` once more, behind the one that failed: they are on their way."""
    starts: dict[int, int] = {}
    for last in (letter.last for letter in letters.values()):
        starts[last.partition] = min(last.offset + 1, starts.get(last.partition, last.offset + 1))
    found: set[Event] = set()
    for message in read_range(settings.kafka, content.after(starts)):
        record = record_of(message)
        first = _replayed(record)
        letter = letters.get((first, record.key)) if first else None
        if letter and (message.partition(), message.offset() or 0) > (letter.last.partition, letter.last.offset):
            found.add(letter.event)
    return found


def _replayed(record: Record) -> Origin | None:
    """Where an event first came, if it was sent back."""
    named = [value for name, value in record.headers if name == REPLAY_SOURCE and value is not None]
    return origin(named[-1]) if named else None


_ORIGIN = re.compile(rb"(.{1,249}):([0-9]{1,9}):([0-9]{1,18})", re.DOTALL)


def origin(raw: bytes) -> Origin | None:
    """The place that the header `tagbus.replay.source` names, None where it names none."""
    found = _ORIGIN.fullmatch(raw)
    return Origin(found[1].decode(errors="replace"), int(found[2]), int(found[3])) if found else None


def _id(record: Record) -> bytes | None:
    """The content's id: the key, or what the value says where there is none and it can be read."""
    if record.key is not None or record.value is None:
        return record.key
    try:
        event = decode_content(Record(None, record.value, originals(record)))
    except Poison:
        return None
    return event.id.encode() if isinstance(event, Content) else None
