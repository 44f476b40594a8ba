"""`tagbus replay`: send dead letters back to their topic once the cause is fixed."""

import sqlite3
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Annotated, Literal, Self

import typer
from rich.table import Table

from tagbus.stream.app import console
from tagbus.stream.app.time_arguments import moment
from tagbus.stream.bus.process.dead_letters import REPLAY_SOURCE
from tagbus.stream.cli.records.dead_letter_selection import REPLAYS, Choice, Letter, Route, Wanted, choose, originals
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.codec import Record
from tagbus.stream.kafka.message import record_of
from tagbus.stream.kafka.ranges import OffsetRange, read_range
from tagbus.stream.kafka.writer import TopicWriter

# Maximum rows of the table; the total is printed beside it.
SHOWN = 50

Moment = str | None
Word = Literal["content.dlq", "feedback.dlq"]


def replay(
    topic: Annotated[Word, typer.Argument(help="dead-letter topic")] = "content.dlq",
    reason: Annotated[
        str | None, typer.Option("--reason", help="class of the error, stage, or a part of the message")
    ] = None,
    since: Annotated[Moment, typer.Option("--since", help="set aside since: RFC 3339, or how long ago (2h)")] = None,
    until: Annotated[Moment, typer.Option("--until", help="set aside until: RFC 3339, or how long ago (2h)")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="maximum number of letters")] = None,
    send: Annotated[bool, typer.Option("--send", help="send them instead of only showing them")] = False,  # noqa: FBT002 - a switch of the command line
) -> None:
    """Send dead letters back to `content`, or decisions to `feedback`, after a fix; without --send, show which would be
    sent.

    An event that was published or sent back since is left out, so a second run sends nothing twice. Letters with the
    reason Stale are left out unless --reason names them.
    """
    settings = load()
    route = _route(settings, topic)
    choice = choose(settings, route, Wanted(reason, moment("--since", since), moment("--until", until)))
    letters = choice.letters[:limit]
    if beyond := len(choice.letters) - len(letters):
        choice.left_out["beyond --limit"] = beyond
    if send:
        console.say(f"sent back: {_send(settings, route, letters)}{_left_out(choice)}")
    else:
        _show(letters)
        console.say(f"to send back with --send: {len(letters)}{_left_out(choice)}")


def record_to_send(record: Record, letter: Letter) -> Record:
    """The original event with headers for the number of replays and the original position."""
    first = f"{letter.first.topic}:{letter.first.partition}:{letter.first.offset}"
    ours = ((REPLAYS, str(letter.replays + 1).encode()), (REPLAY_SOURCE, first.encode()))
    return Record(record.key, record.value, (*originals(record), *ours))


class Spool:
    """Records in a temporary file, to be read back in another order."""

    def __init__(self) -> None:
        # SQLite keeps an unnamed database in a temporary file, which it removes on close.
        self._base = sqlite3.connect("")
        self._base.execute("CREATE TABLE records (rank INTEGER PRIMARY KEY, key BLOB, value BLOB)")
        self._base.execute("CREATE TABLE headers (rank INTEGER, number INTEGER, name TEXT, value BLOB)")
        self._base.execute("CREATE INDEX ranks ON headers (rank, number)")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._base.close()

    def put(self, rank: int, record: Record) -> None:
        """Store a record under its rank."""
        self._base.execute("INSERT INTO records VALUES (?, ?, ?)", (rank, record.key, record.value))
        headers = [(rank, number, name, value) for number, (name, value) in enumerate(record.headers)]
        self._base.executemany("INSERT INTO headers VALUES (?, ?, ?, ?)", headers)

    def ranked(self) -> Iterator[tuple[int, Record]]:
        """All records in order of rank."""
        for rank, key, value in self._base.execute("SELECT rank, key, value FROM records ORDER BY rank"):
            found = self._base.execute("SELECT name, value FROM headers WHERE rank = ? ORDER BY number", (rank,))
            yield rank, Record(key, value, tuple(found))


def _route(settings: Settings, topic: Word) -> Route:
    topics = settings.topics
    if topic == "content.dlq":
        return Route(topics.dead_letters, topics.content, topics.tagged)
    return Route(topics.feedback_dead_letters, topics.feedback)


def _send(settings: Settings, route: Route, letters: Sequence[Letter]) -> int:
    """Send the letters in the order of their events, each to its partition; returns the number of confirmed records."""
    with Spool() as spool, console.bar("reading dead letters", len(letters)) as bar:
        for rank, record in _fetch(settings, route, letters):
            spool.put(rank, record)
            bar.advance(1)
        with TopicWriter(settings.kafka, route.source) as writer:
            for rank, record in spool.ranked():
                writer.send(record_to_send(record, letters[rank]), letters[rank].last.partition)
        return writer.confirmed


def _fetch(settings: Settings, route: Route, letters: Sequence[Letter]) -> Iterator[tuple[int, Record]]:
    """The letters' records with their ranks, in the order of the dead-letter topic."""
    ranks = {letter.place: rank for rank, letter in enumerate(letters)}
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    for partition, offset in ranks:
        starts[partition] = min(offset, starts.get(partition, offset))
        ends[partition] = max(offset + 1, ends.get(partition, 0))
    for message in read_range(settings.kafka, OffsetRange(route.letters, starts, ends)):
        rank = ranks.get((message.partition() or 0, message.offset() or 0))
        if rank is not None:
            yield rank, record_of(message)


def _show(letters: Sequence[Letter]) -> None:
    if not letters:
        return
    table = Table("from", "reason", "replays")
    for letter in letters[:SHOWN]:
        origin = f"{letter.last.topic}:{letter.last.partition}:{letter.last.offset}"
        table.add_row(console.printable(origin), console.printable(letter.why), str(letter.replays))
    console.stdout.print(table)
    if len(letters) > SHOWN:
        console.print_line(f"and {len(letters) - SHOWN} more")


def _left_out(choice: Choice) -> str:
    """The numbers of excluded letters by reason; empty if there are none."""
    parts = ", ".join(f"{count} {reason}" for reason, count in choice.left_out.most_common())
    return f"; left out: {parts}" if parts else ""
