"""Select the dead letters that may be replayed, and give the reason for the others. Reads topics and writes nothing.

An event is identified by its original topic, partition and offset, and by its key: the letter of an event that was
replayed before carries that position in `tagbus.replay.source`.
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
# Headers of letters with truncated events, which cannot be replayed unchanged.
CUT = frozenset(
    {
        DEAD_LETTER_HEADERS["value_bytes"],
        "tagbus.key.bytes",
        "tagbus.headers.dropped",
        UNREADABLE,
    }
)
OWN = frozenset({*DEAD_LETTER_HEADERS.values(), *SOURCE_HEADERS, *CUT, "tagbus.key.sha256", REPLAY_SOURCE})
# Maximum clock skew between two workers.
SKEW = timedelta(minutes=5)

Event = tuple[Origin, bytes | None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The selection: error class, stage or part of the message, and the time of dead-lettering."""

    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def takes(self, letter: DeadLetter, time: datetime) -> bool:
        """Whether the letter is selected."""
        if (self.since is not None and time < self.since) or (self.until is not None and time > self.until):
            return False
        if self.reason is None or self.names(letter):
            return True
        return self.reason.casefold() in letter.message.casefold()

    def names(self, letter: DeadLetter) -> bool:
        """Whether the reason is exactly the letter's class or stage."""
        return self.reason in {letter.exception, letter.stage}


@dataclass(frozen=True, slots=True)
class Route:
    """The dead-letter topic and the topic that its events come from. `results`: the topic that shows which of them were
    published since; None for events that count once even if sent twice."""

    letters: str
    source: str
    results: str | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """Metadata of a dead letter, without its value.

    `place`: partition and offset on the dead-letter topic; `first` and `last`: the original position of the event, and
    that of its failed replay; `verdict`: why the letter on its own is excluded, or empty.
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
        """Identifies the letter's event."""
        return self.first, self.key


@dataclass(frozen=True, slots=True)
class Choice:
    """The letters to replay, in the order of their events, and the number of excluded letters by reason."""

    letters: list[Letter]
    left_out: Counter[str]


def choose(settings: Settings, route: Route, wanted: Wanted) -> Choice:
    """Classify the dead letters. Raises UserError if a topic is missing, DependencyDown if no broker answers."""
    left_out: Counter[str] = Counter()
    source = current_range(settings.kafka, route.source)
    chosen: dict[Event, Letter] = {}
    for event, letter in _newest(settings, route, wanted, left_out).items():
        verdict = letter.verdict or _placed(letter, source)
        if verdict:
            left_out[verdict] += 1
        else:
            chosen[event] = letter
    for verdict, gone in (
        ("published since", _published(settings, route, chosen.values())),
        ("sent back already", _sent_back(settings, chosen, source)),
    ):
        left_out[verdict] += sum(chosen.pop(event, None) is not None for event in gone)
    letters = sorted(chosen.values(), key=lambda letter: (letter.first.partition, letter.first.offset))
    return Choice(letters, +left_out)


def originals(record: Record) -> tuple[tuple[str, bytes | None], ...]:
    """The headers of the original event."""
    return tuple((name, value) for name, value in record.headers if name not in OWN)


def _newest(settings: Settings, route: Route, wanted: Wanted, left_out: Counter[str]) -> dict[Event, Letter]:
    """The newest letter of each event, including letters that are not selected: they supersede older ones."""
    found: dict[Event, Letter] = {}
    for message in read_range(settings.kafka, current_range(settings.kafka, route.letters, wanted.since)):
        try:
            letter = _letter(message, wanted)
        except Poison:
            left_out["not from tagbus"] += 1
            continue
        older = found.get(letter.event)
        if older is None or (older.replays, older.time) <= (letter.replays, letter.time):
            found[letter.event] = letter
    return found


def _letter(message: Message, wanted: Wanted) -> Letter:
    record, time = record_of(message), timestamp(message)
    dead_letter = read_dead_letter(record.headers)
    last = Origin(dead_letter.topic, dead_letter.partition, dead_letter.offset)
    return Letter(
        place=(message.partition() or 0, message.offset() or 0),
        first=_replayed(record) or last,
        last=last,
        key=record.key,
        id=_id(record),
        time=time,
        why=f"{dead_letter.exception} at {dead_letter.stage}: {dead_letter.message}"[:120],
        replays=dead_letter.replays,
        verdict=_verdict(record, dead_letter, wanted, time),
    )


def _verdict(record: Record, dead_letter: DeadLetter, wanted: Wanted, time: datetime) -> str:
    if not wanted.takes(dead_letter, time):
        return "not asked for"
    if dead_letter.exception == Stale.__name__ and not wanted.names(dead_letter):
        return "stale"
    if any(name in CUT for name, _ in record.headers):
        return "cut"
    return ""


def _placed(letter: Letter, source: OffsetRange) -> str:
    """Exclude letters of other topics: the topic of their results is unknown, so whether they have one cannot be
    checked."""
    if letter.last.topic != source.topic:
        return "of another topic"
    return "" if letter.last.partition in source.ends else "of a deleted partition"


def _published(settings: Settings, route: Route, letters: Collection[Letter]) -> set[Event]:
    """Events whose content has a result or a withdrawal newer than the letter; by id, or by source position."""
    if not letters or route.results is None:
        return set()
    by_id: dict[bytes, list[Letter]] = {}
    for letter in letters:
        if letter.id is not None:
            by_id.setdefault(letter.id, []).append(letter)
    by_source = {letter.last: letter for letter in letters}
    since = min(letter.time for letter in letters) - SKEW
    found: set[Event] = set()
    for message in read_all(settings.kafka, route.results, since):
        record = record_of(message)
        try:
            source = read_source(record.headers)
        except Poison:
            continue
        same = by_id.get(record.key or b"", [])
        found.update(letter.event for letter in same if _after(source, timestamp(message), letter))
        if source in by_source:
            found.add(by_source[source].event)
    return found


def _after(source: Origin, time: datetime, letter: Letter) -> bool:
    """Within a partition offsets give the order; across partitions the timestamps must."""
    if (source.topic, source.partition) == (letter.last.topic, letter.last.partition):
        return source.offset >= letter.last.offset
    return time > letter.time


def _sent_back(settings: Settings, letters: Mapping[Event, Letter], source: OffsetRange) -> set[Event]:
    """Events that are on their topic again after the failure: their replay is pending."""
    starts: dict[int, int] = {}
    for last in (letter.last for letter in letters.values()):
        starts[last.partition] = min(last.offset + 1, starts.get(last.partition, last.offset + 1))
    found: set[Event] = set()
    for message in read_range(settings.kafka, source.after(starts)):
        record = record_of(message)
        first = _replayed(record)
        letter = letters.get((first, record.key)) if first else None
        if letter and (message.partition(), message.offset() or 0) > (letter.last.partition, letter.last.offset):
            found.add(letter.event)
    return found


def _replayed(record: Record) -> Origin | None:
    """The original position of an event, if it was replayed."""
    named = [value for name, value in record.headers if name == REPLAY_SOURCE and value is not None]
    return origin(named[-1]) if named else None


_ORIGIN = re.compile(rb"(.{1,249}):([0-9]{1,9}):([0-9]{1,18})", re.DOTALL)


def origin(raw: bytes) -> Origin | None:
    """Parse the header `tagbus.replay.source`; None if it is invalid."""
    found = _ORIGIN.fullmatch(raw)
    return Origin(found[1].decode(errors="replace"), int(found[2]), int(found[3])) if found else None


def _id(record: Record) -> bytes | None:
    """The content's id: the key, or else the id in the value if it can be parsed."""
    if record.key is not None or record.value is None:
        return record.key
    try:
        event = decode_content(Record(None, record.value, originals(record)))
    except Poison:
        return None
    return event.id.encode() if isinstance(event, Content) else None
