"""`tagbus tail`: results and dead letters as they come, for people at a terminal."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Literal

import typer
from confluent_kafka import Message
from pydantic_core import from_json, to_json
from rich.table import Table

from tagbus.stream.app import console
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.codec import Record, Tombstone, decode_tagged, read_dead_letter, unframed
from tagbus.stream.contract.events import DeadLetter, TaggedContent
from tagbus.stream.errors import Poison, shorten
from tagbus.stream.kafka.identity import TopicIds
from tagbus.stream.kafka.message import record_of
from tagbus.stream.kafka.reader import TopicReader

Word = Literal["tagged", "content.dlq", "feedback.dlq"]


def tail(
    topic: Annotated[Word, typer.Argument(help="what to show")] = "tagged",
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="stop after this many")] = None,
    start: Annotated[Literal["earliest", "latest"], typer.Option("--from", help="where to begin")] = "earliest",
    form: Annotated[
        Literal["table", "json"], typer.Option("--as", help="for people, or a JSON object a line")
    ] = "table",
) -> None:
    """Show results or dead letters as they arrive; records of other programs are marked. Ctrl-C ends it."""
    settings = load()
    for message in islice(follow(settings, _name(settings, topic), start), count):
        if form == "json":
            typer.echo(json_line(topic, message))
        elif isinstance(shown := table(topic, message), str):
            console.print_line(shown)
        else:
            console.stdout.print(shown)


def follow(settings: Settings, topic: str, start: Literal["earliest", "latest"]) -> Iterator[Message]:
    """Committed records of all partitions as they arrive, in no group. Endless: the caller stops it.

    Raises also TopicRecreated.
    """
    ids = TopicIds(settings.kafka, [topic])
    with TopicReader(settings.kafka) as reader:
        reader.discover([topic], "beginning" if start == "earliest" else "end")
        while True:
            reader.check(ids.recreated())
            yield from reader.read(100, 0.5).messages


def _name(settings: Settings, topic: Word) -> str:
    topics = settings.topics
    names = {"content.dlq": topics.dead_letters, "feedback.dlq": topics.feedback_dead_letters}
    return names.get(topic, topics.tagged)


def json_line(topic: Word, message: Message) -> str:
    """One line of JSON: that of `as_json`, or position and error of a record that is not from tagbus."""
    record = record_of(message)
    try:
        return as_json(topic, record)
    except Poison as error:
        shown = {
            "record": _place(message),
            "error": f"not from tagbus: {error.errors[0]}",
            "value": _beginning(record, 200),
        }
        return json.dumps(shown, ensure_ascii=False)


def table(topic: Word, message: Message) -> Table | str:
    """The text or table for people, also for a record that is not from tagbus."""
    record = record_of(message)
    try:
        return as_table(topic, record)
    except Poison as error:
        reason = console.printable(f"{_place(message)}  not from tagbus: {error.errors[0]}")
        return f"{reason}\n    {_beginning(record, 100) or 'null'}"


def as_json(topic: Word, record: Record) -> str:
    """The result verbatim, the id of a withdrawn content, or a dead letter's reason with the start of its value.

    Raises Poison for a record that is none of these.
    """
    if topic != "tagged":
        letter = read_dead_letter(record.headers)
        return json.dumps({**letter.model_dump(), "value": _beginning(record, 200)}, ensure_ascii=False)
    event = decode_tagged(record)
    if isinstance(event, Tombstone):
        return json.dumps({"id": event.key, "withdrawn": True}, ensure_ascii=False)
    # Reserialised on one line; fields that a newer contract has added are kept.
    return to_json(from_json(unframed(record.value or b""))).decode()


def as_table(topic: Word, record: Record) -> Table | str:
    """The text or table for people. Raises Poison for a record that is neither a result nor a dead letter."""
    if topic == "tagged":
        event = decode_tagged(record)
        if isinstance(event, Tombstone):
            return f"{console.printable(event.key)} was withdrawn"
        return tagged_table(event, event.id)
    return dead_letter_line(read_dead_letter(record.headers), record)


def dead_letter_line(letter: DeadLetter, record: Record) -> str:
    """Its source position, its reason, and the start of its value."""
    where = f"{letter.topic}:{letter.partition}:{letter.offset}"
    reason = console.printable(f"{where}  {letter.exception} at {letter.stage}: {letter.message}")
    return f"{reason}\n    {_beginning(record, 100) or 'null'}"


def tagged_table(event: TaggedContent, title: str, most: int = 5) -> Table:
    """The best tags of a content with score, confidence and evidence."""
    table = Table("tag", "confidence", "score", "why", title=shorten(title, 100), title_justify="left")
    for tag in event.tags[:most]:
        why = []
        if tag.evidence.decided:
            why.append("people said so")
        if tag.evidence.similarity is not None:
            why.append(f"like its name {tag.evidence.similarity:.2f}")
        if tag.evidence.votes:
            first = tag.evidence.neighbours[:1]
            nearest = "".join(f" ({console.printable(one.id)} {one.similarity:.2f})" for one in first)
            why.append(f"{tag.evidence.votes} neighbour{'s' * (tag.evidence.votes > 1)}{nearest}")
        table.add_row(console.printable(tag.name), f"{tag.confidence:.2f}", f"{tag.score:.3f}", "; ".join(why))
    return table


def _place(message: Message) -> str:
    return f"{message.topic()}:{message.partition()}:{message.offset()}"


def _beginning(record: Record, length: int) -> str | None:
    return None if record.value is None else shorten(record.value, length)
