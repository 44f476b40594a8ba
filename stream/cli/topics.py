"""`tagbus publish` and `retire`: the topics, for people at a terminal."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from tagbus.stream.app import console, files
from tagbus.stream.config import Settings, TopicSettings, load
from tagbus.stream.contract.codec import DECODERS, Record, encode_record
from tagbus.stream.errors import CheckFailed, Poison
from tagbus.stream.kafka.writer import TopicWriter

Word = Literal["content", "tags", "exemplars", "knowledge"]


def publish(
    file: Annotated[Path, typer.Argument(help="a JSON object a line; - is standard input")],
    to: Annotated[Word, typer.Option("--to", help="the topic")],
) -> None:
    """Publish the lines of FILE, each under its own id. Nothing is published unless every line is right."""
    settings = load()
    with tempfile.TemporaryDirectory() as folder:
        source = _spooled(file, Path(folder))
        count = _all_right(source, to)
        with console.bar(f"publishing to {topic_name(settings.topics, to)}", count) as bar:
            records = (encode_record(files.READERS[to](line)) for line in files.read_lines(source))
            send(settings, topic_name(settings.topics, to), records, bar)


def retire(
    key: Annotated[
        str, typer.Argument(help="id of a tag, a content or a knowledge segment; `id/source` of an exemplar")
    ],
    to: Annotated[Word, typer.Option("--from", help="the topic")],
) -> None:
    """Publish a null value: the tag is retired, the content, the exemplar or the knowledge segment withdrawn."""
    settings = load()
    record = tombstone(to, key)
    with console.bar("publishing", 1) as bar:
        send(settings, topic_name(settings.topics, to), iter([record]), bar)


def tombstone(to: Word, key: str) -> Record:
    """The record that retires `key`. Raises Poison for a key that no record of that topic can have."""
    record = Record(key.encode(errors="surrogateescape"), None)
    DECODERS[to](record)
    return record


def topic_name(names: TopicSettings, word: Word) -> str:
    """The topic that a word of the design names here."""
    return {
        "content": names.content,
        "tags": names.tags,
        "exemplars": names.exemplars,
        "knowledge": names.knowledge,
    }[word]


def _spooled(file: Path, folder: Path) -> Path:
    """Standard input can be read once and is read twice: it goes through a file."""
    if str(file) != "-":
        return file
    spool = folder / "stdin"
    with spool.open("wb") as copy:
        for line in files.read_lines(file):
            copy.write(line.value + b"\n")
    return spool


def _all_right(source: Path, to: Word) -> int:
    right = wrong = 0
    for line in files.read_lines(source):
        try:
            files.READERS[to](line)
            right += 1
        except Poison as error:
            wrong += 1
            console.say(f"{line.place}: {error}")
    if wrong:
        raise CheckFailed(f"{wrong} lines are wrong, nothing was published")
    return right


def send(settings: Settings, topic: str, records: Iterator[Record], bar: console.Bar) -> None:
    """Produce records and see each acknowledged. Raises UserError or DependencyDown when one is not."""
    with TopicWriter(settings.kafka, topic) as writer:
        for record in records:
            writer.send(record)
            bar.to(writer.confirmed)
    bar.to(writer.confirmed)
