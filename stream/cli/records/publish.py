"""`tagbus publish` and `retire`: the topics, for people at a terminal."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Annotated, Literal

import typer

from tagbus.stream.app import console, files
from tagbus.stream.app.published import current_tags
from tagbus.stream.config import Settings, TopicSettings, load
from tagbus.stream.contract.codec import DECODERS, Record, encode, encode_record, parse
from tagbus.stream.contract.events import Tag
from tagbus.stream.errors import CheckFailed, Poison, UserError, shorten
from tagbus.stream.kafka.limits import SizeLimit
from tagbus.stream.kafka.writer import TopicWriter

Word = Literal["content", "tags", "exemplars", "knowledge"]


def publish(
    file: Annotated[Path, typer.Argument(help="a JSON object a line; - is standard input")],
    to: Annotated[Word, typer.Option("--to", help="the topic")],
) -> None:
    """Publish the lines of FILE, each under its own id. Nothing is published unless every line is right, and small
    enough for the topic."""
    settings = load()
    topic = topic_name(settings.topics, to)
    writer = TopicWriter(settings.kafka, topic)
    with files.rereadable(file) as lines:
        count = _require_right(lines(), to, writer.limit)
        # A file that grows meanwhile has lines that were not looked at.
        records = (encode_record(files.READERS[to](line)) for line in islice(lines(), count))
        try:
            with console.bar(f"publishing to {topic}", count) as bar:
                send(writer, records, bar)
        finally:
            console.say(_published(writer, topic, islice(lines(), count), count))


def retire(
    key: Annotated[
        str, typer.Argument(help="id of a tag, a content or a knowledge segment; `id/source` of an exemplar")
    ],
    to: Annotated[Word, typer.Option("--from", help="the topic")],
    replaced_by: Annotated[
        list[str] | None, typer.Option("--replaced-by", help="id of the tag in its place; of a split, given again")
    ] = None,
) -> None:
    """Publish a null value: the tag is retired, the content, the exemplar or the knowledge segment withdrawn.

    With --replaced-by the tag is published once more instead, with its successors: what its exemplars say counts for
    the one successor from then on, and for none of several.
    """
    settings = load()
    record = tombstone(to, key)
    if replaced_by:
        if to != "tags":
            raise UserError(f"--replaced-by: only a tag has successors, expected --from tags, not --from {to}")
        record = encode_record(_replaced(settings, key, replaced_by))
    topic = topic_name(settings.topics, to)
    with console.bar("publishing", 1) as bar:
        send(TopicWriter(settings.kafka, topic), iter([record]), bar)
    if replaced_by:
        console.say(f"published {shorten(key)} to {topic}, replaced by {', '.join(map(shorten, replaced_by))}")
    else:
        console.say(f"published a null to {topic}")


def _replaced(settings: Settings, key: str, successors: Sequence[str]) -> Tag:
    """The tag, retired in favour of these. Raises UserError where one is not in force, Poison for its own id."""
    found = current_tags(settings, [key, *successors])
    topic = settings.topics.tags
    if key not in found:
        raise UserError(f"{shorten(key)} is no tag of topic {topic}")
    for one in successors:
        if one not in found:
            raise UserError(f"--replaced-by: {shorten(one)} is no tag of topic {topic}")
        if one != key and (next_ := found[one].replaced_by):
            raise UserError(
                f"--replaced-by: {shorten(one)} is retired itself, in favour of {', '.join(map(shorten, next_))}"
            )
    return parse(encode(found[key].model_copy(update={"replaced_by": tuple(dict.fromkeys(successors))})), Tag)


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


def send(writer: TopicWriter, records: Iterator[Record], bar: console.Bar) -> None:
    """Produce records and see each acknowledged. Raises UserError or DependencyDown when one is not."""
    with writer:
        for record in records:
            writer.send(record)
            bar.to(writer.confirmed)
    bar.to(writer.confirmed)


def _require_right(lines: Iterator[files.Line], to: Word, limit: SizeLimit | None) -> int:
    """The number of lines. Raises CheckFailed, after each wrong one is said."""
    right = wrong = 0
    for line in lines:
        try:
            record = encode_record(files.READERS[to](line))
            if limit is not None:
                limit.check(record)
            right += 1
        except Poison as error:
            wrong += 1
            console.say(f"{line.place}: {error}")
    if wrong:
        raise CheckFailed(f"{console.wrong_lines(wrong)}, nothing was published")
    return right


def _published(writer: TopicWriter, topic: str, lines: Iterator[files.Line], count: int) -> str:
    """How many records are on the topic, and the lines of those that are not, or are not known to be."""
    if writer.confirmed == count:
        return f"published {count} record{'s' * (count != 1)} to {topic}"
    stretches = groupby(enumerate(lines), lambda line: _is_confirmed(writer, line[0]))
    missing = ", ".join(_places(line for _, line in stretch) for confirmed, stretch in stretches if not confirmed)
    return f"published {writer.confirmed} of {count} records to {topic}; not confirmed: {missing}"


def _places(stretch: Iterator[files.Line]) -> str:
    """The first and the last line. The lines between are not kept: a file may be larger than memory."""
    first = next(stretch)
    last = deque(stretch, maxlen=1)
    return f"{first.place}-{last[0].number}" if last else first.place


def _is_confirmed(writer: TopicWriter, number: int) -> bool:
    return number < writer.sent and number not in writer.unconfirmed
