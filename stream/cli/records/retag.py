"""`tagbus retag`: send contents again after a taxonomy change.

`content` is read twice. The first pass keeps the newest offset of each content, and no values. The second pass reads
the records at those offsets and sends the affected ones, each to its partition.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Protocol

import typer
from confluent_kafka import Message

from tagbus.stream.app import console
from tagbus.stream.app.places import files, folders
from tagbus.stream.app.published import current_tags
from tagbus.stream.app.time_arguments import MOMENT, moment
from tagbus.stream.bus.process.dead_letters import REPLAY_SOURCE, RETAG
from tagbus.stream.bus.process.stamps import Stamp, older, stamp_of, withdrawal, withdrawn
from tagbus.stream.cli.records.dead_letter_selection import REPLAYS
from tagbus.stream.cli.tag import Cache
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.codec import Record, Tombstone, decode_content, decode_tagged
from tagbus.stream.contract.events import Content, TaggedContent
from tagbus.stream.encoder.base import Encoder
from tagbus.stream.encoder.open import open_encoder
from tagbus.stream.encoder.release import content_text
from tagbus.stream.errors import Poison, UserError, shorten
from tagbus.stream.kafka.access import missing_rights
from tagbus.stream.kafka.message import record_of, recorded
from tagbus.stream.kafka.ranges import OffsetRange, current_range, read_range
from tagbus.stream.kafka.writer import TopicWriter
from tagbus.stream.llm.batch.answers import JUDGED, header
from tagbus.stream.llm.batch.folder import Folder
from tagbus.stream.memory.scopes import within
from tagbus.stream.recall.graph import parameters

# Headers of an earlier replay or retag: a content that is sent again is a new event.
OWN = frozenset({RETAG, REPLAYS, REPLAY_SOURCE, JUDGED})
Batch = Annotated[
    Path | None,
    typer.Option(
        "--batch", help="ask the language model through its batch API, for half the price; a folder for the progress"
    ),
]
Every = Annotated[float, typer.Option("--every", min=0.01, help="seconds between polls of the batch")]
# Partition and offset.
RecordPosition = tuple[int, int]
# The position of a content's newest event (None if it is a withdrawal), and its version or time.
Newest = tuple[RecordPosition | None, Stamp]

# Number of examples shown.
SHOWN = 5
# Contents encoded together.
CHUNK = 256


@dataclass(frozen=True, slots=True)
class Found:
    """The newest event of a content."""

    partition: int
    record: Record
    content: Content


class Concern(Protocol):
    """Selects the affected contents."""

    @property
    def reason(self) -> str:
        """The value of the header that gives the reason."""

    def affected(self, found: Sequence[Found]) -> Iterator[Found]:
        """The affected contents among these."""


@dataclass(frozen=True, slots=True)
class All:
    """Every content is affected."""

    reason: str

    def affected(self, found: Sequence[Found]) -> Iterator[Found]:
        """All of these contents."""
        yield from found


class WithoutAStage:
    """Selects contents whose latest result lacks a stage (`degraded`)."""

    reason = "degraded"

    def __init__(self, settings: Settings) -> None:
        self._named = _results(settings, lambda result: bool(result.degraded))

    def affected(self, found: Sequence[Found]) -> Iterator[Found]:
        """The contents with such a result."""
        yield from (one for one in found if one.content.id in self._named)


class OneTag:
    """Selects contents whose latest result includes a tag, or that see it and pass C2T's similarity threshold for
    it."""

    def __init__(self, settings: Settings, name: str, stack: ExitStack) -> None:
        """`stack` closes what it opens. Raises UserError for a tag that is neither on its topic nor in any result."""
        self.reason = f"tag {name}"
        self._named = _results(settings, lambda result: any(one.id == name for one in result.tags))
        self._runner = stack.enter_context(asyncio.Runner())
        found = current_tags(settings, [name]).get(name)
        tag = None if found is None or found.replaced_by else found
        if tag is None and not self._named:
            raise UserError(f"{shorten(name)} is not a tag on topic {settings.topics.tags}, and no result names it")
        self._audience = None if tag is None else frozenset(tag.scopes)
        self._encoder: Encoder | None = None
        if tag is None:
            console.say(f"{name} is not in force: only contents whose latest result names it are affected")
            return
        self._encoder = self._runner.run(open_encoder(settings.encoder, folders.model_folder(settings)))
        stack.callback(self._close, self._encoder)
        release = self._encoder.release
        text = release.tag_text(tag.name, tag.aliases, tag.description)
        self._vector = self._runner.run(self._encoder.encode([text]))[0]
        self._threshold = parameters(release.recall, settings.recall).c2t_threshold

    def affected(self, found: Sequence[Found]) -> Iterator[Found]:
        """Contents with the tag in their result, then similar ones."""
        yield from (one for one in found if one.content.id in self._named)
        others = [
            one
            for one in found
            if one.content.id not in self._named and within(self._audience, frozenset(one.content.scopes))
        ]
        if self._encoder is None or not others:
            return
        texts = [content_text(one.content.title, one.content.text) for one in others]
        cosines = self._runner.run(self._encoder.encode(texts)) @ self._vector
        yield from (one for one, cosine in zip(others, cosines, strict=True) if cosine >= self._threshold)

    def _close(self, encoder: Encoder) -> None:
        self._runner.run(encoder.close())


def retag(
    since: Annotated[str | None, typer.Option("--since", help=f"contents that came since: {MOMENT}")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="contents affected by the tag with this id")] = None,
    degraded: Annotated[bool, typer.Option("--degraded", help="contents with a skipped stage")] = False,  # noqa: FBT002 - a switch of the command line
    send: Annotated[bool, typer.Option("--send", help="send them instead of only counting them")] = False,  # noqa: FBT002 - a switch of the command line
    batch: Batch = None,
    every: Every = 60.0,
    cache: Cache = None,
) -> None:
    """Send contents again after a taxonomy change, or those with a skipped stage; without --send, show how many and
    some examples.

    --since selects the newest event of each content that arrived since then. --tag selects contents whose latest result
    names the tag, or that see it and pass the recall threshold. --degraded selects contents whose latest
    result lacks a stage, for instance the judge after its budget was spent. Withdrawn contents are left out. With
    --batch the language model is first asked about all of them through its server's batch API, which takes up to a day.
    """
    if sum((since is not None, tag is not None, degraded)) != 1:
        raise UserError("expected one of --since, --tag and --degraded")
    if batch is not None and not send:
        raise UserError("--batch costs money, expected --send with it; without both the contents are only counted")
    settings, start = load(), moment("--since", since)
    with ExitStack() as stack:
        concern: Concern
        if start is not None:
            concern = All(_since(start))
        else:
            concern = WithoutAStage(settings) if tag is None else OneTag(settings, tag, stack)
        content = current_range(settings.kafka, settings.topics.content, start)
        if batch is not None:
            words = f"--since {since}" if since else concern.reason
            with Folder(batch) as folder:
                _send_asked(settings, content, concern, folder, words, every, cache)
        elif send:
            _send(settings, content, concern)
        else:
            _show(settings, content, concern)


def record_to_send(record: Record, reason: str) -> Record:
    """The same event, with the reason of the retag as a header."""
    kept = tuple((name, value) for name, value in record.headers if name not in OWN)
    return Record(record.key, record.value, (*kept, (RETAG, reason.encode())))


def _since(start: datetime) -> str:
    return f"since {start.isoformat(timespec='seconds')}"


def _send(settings: Settings, content: OffsetRange, concern: Concern) -> None:
    with TopicWriter(settings.kafka, content.topic) as writer:
        for found in _affected(settings, content, concern):
            writer.send(record_to_send(found.record, concern.reason), found.partition)
    console.say(f"sent again: {writer.confirmed} ({concern.reason})")


def _send_asked(
    settings: Settings,
    content: OffsetRange,
    concern: Concern,
    folder: Folder,
    about: str,
    every: float,
    cache: Path | None,
) -> None:
    """Ask in a batch, then send the same contents with its answers."""
    try:
        from tagbus.stream.app.judge.batch import Errand, carried, key_of
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'tagbus[llm]'") from None
    key = key_of(settings)
    if folder.sent is not None:
        raise UserError(f"--batch {folder.path}: its {folder.sent} contents were sent already; expected another folder")

    # The batch costs money: what it answers must be able to go out.
    if refused := missing_rights(settings.kafka, [("Write", content.topic)]):
        raise refused

    def contents() -> Iterator[Content]:
        return (found.content for found in _affected(settings, content, concern))

    done = asyncio.run(carried(settings, folder, Errand(folder.path, about, contents, every, cache)))
    concerned = done.concerned()
    answered = left = 0
    with TopicWriter(settings.kafka, content.topic) as writer:
        for found in _affected(settings, content, concern):
            digest = done.digest(found.content)
            if digest not in concerned:
                left += 1
                continue
            record = record_to_send(found.record, concern.reason)
            if given := done.answers.look(digest):
                answered += given.failure is None
                record = Record(record.key, record.value, (*record.headers, (JUDGED, header(given, key))))
            writer.send(record, found.partition)
    folder.note_sent(writer.confirmed)
    done.answers.close()
    since = f"; {left} changed since, or were affected since, and were left" if left else ""
    console.say(f"sent again: {writer.confirmed} ({concern.reason}), {answered} answered by the batch{since}")


def _show(settings: Settings, content: OffsetRange, concern: Concern) -> None:
    number = 0
    for number, found in enumerate(_affected(settings, content, concern), start=1):
        if number <= SHOWN:
            title = found.content.title or found.content.text
            console.print_line(console.printable(f"{found.content.id}  {title}")[:120])
    if number > SHOWN:
        console.print_line(f"and {number - SHOWN} more")
    console.say(f"to send again with --send: {number} ({concern.reason})")


def _affected(settings: Settings, content: OffsetRange, concern: Concern) -> Iterator[Found]:
    newest = _newest(settings, content)
    there = sum(place is not None for place, _ in newest.values())
    with console.bar("looking for affected contents", there) as bar:
        for chunk in files.chunks(_found(settings, content, newest), CHUNK):
            yield from concern.affected(chunk)
            bar.advance(len(chunk))


def _newest(settings: Settings, content: OffsetRange) -> dict[str, Newest]:
    """The position of the newest event of each content, by the same rule that detects stale ones."""
    newest: dict[str, Newest] = {}
    now = time.time()
    with console.bar(f"reading {content.topic}", content.offsets) as bar:
        for message in read_range(settings.kafka, content):
            bar.advance(1)
            try:
                event = decode_content(record_of(message))
            except Poison:
                # An invalid record has not replaced the content of that key.
                continue
            key = event.key if isinstance(event, Tombstone) else event.id
            before = newest[key][1] if key in newest else 0
            if isinstance(event, Tombstone):
                newest[key] = None, withdrawn(before, withdrawal(recorded(message), now))
                continue
            stamp = stamp_of(event.version, event.time)
            if not older(stamp, before):
                newest[key] = _position(message), stamp or before
    return newest


def _found(settings: Settings, content: OffsetRange, newest: Mapping[str, Newest]) -> Iterator[Found]:
    """The newest event of each content."""
    for message in read_range(settings.kafka, content):
        record, place = record_of(message), _position(message)
        try:
            event = decode_content(record)
        except Poison:
            continue
        if isinstance(event, Content) and newest[event.id][0] == place:
            yield Found(place[0], record, event)


def _results(settings: Settings, concerned: Callable[[TaggedContent], bool]) -> set[str]:
    """Ids of the contents whose latest result satisfies `concerned`."""
    named: set[str] = set()
    results = current_range(settings.kafka, settings.topics.tagged)
    with console.bar(f"reading {results.topic}", results.offsets) as bar:
        for message in read_range(settings.kafka, results):
            bar.advance(1)
            try:
                result = decode_tagged(record_of(message))
            except Poison:
                continue
            if isinstance(result, Tombstone):
                named.discard(result.key)
            elif concerned(result):
                named.add(result.id)
            else:
                named.discard(result.id)
    return named


def _position(message: Message) -> RecordPosition:
    return message.partition() or 0, message.offset() or 0
