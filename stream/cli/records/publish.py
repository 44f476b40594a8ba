"""`tagbus publish` and `tagbus retire`: write to the topics from a terminal."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import Annotated, Literal

import typer

from tagbus.stream.app import console
from tagbus.stream.app.places import files
from tagbus.stream.app.published import current_tags
from tagbus.stream.config import KafkaSettings, Settings, TopicSettings, load
from tagbus.stream.contract.codec import DECODERS, Record, encode, encode_record, parse, split_exemplar_key
from tagbus.stream.contract.events import Tag
from tagbus.stream.contract.fields import widens
from tagbus.stream.errors import CheckFailed, Poison, UserError, shorten
from tagbus.stream.feedback.published import PUBLISHER, Publishing
from tagbus.stream.kafka.writer import TopicWriter

Word = Literal["content", "tags", "exemplars", "knowledge", "feedback"]
# Makes the record of a line; None for a line of another route. Raises Poison.
RecordOf = Callable[[files.Line], Record | None]


@dataclass
class Route:
    """Lines of a file that go to one topic."""

    kafka: KafkaSettings
    topic: str
    record_of: RecordOf

    @cached_property
    def writer(self) -> TopicWriter:
        """Created on first use, so that only topics with lines must exist. Raises UserError or DependencyDown."""
        return TopicWriter(self.kafka, self.topic)

    def lines(self, lines: Iterator[files.Line]) -> Iterator[tuple[files.Line, Record]]:
        """The lines of this route, and their records."""
        for line in lines:
            if (record := self.record_of(line)) is not None:
                yield line, record


def publish(
    file: Annotated[Path, typer.Argument(help="a JSON object a line; - is standard input")],
    to: Annotated[Word, typer.Option("--to", help="the topic")],
    who: Annotated[str | None, typer.Option("--who", help="of exemplars: who decided; default: publish")] = None,
) -> None:
    """Publish the lines of FILE, each under its own id. Nothing is published unless every line is right and small
    enough for the topic.

    Exemplars of people are published as decisions (topic `feedback`), which `tagbus feedback` joins with those of other
    people. They replace the same person's earlier ones.
    """
    if who is not None and to != "exemplars":
        raise UserError(f"--who {who} has no effect with --to {to}, expected --to exemplars")
    routes = _routes(load(), to, who or PUBLISHER)
    with files.rereadable(file) as lines:
        count = _require_right(lines(), routes)
        for route in routes:
            # A file that grows meanwhile has lines that were not checked.
            number = sum(1 for _ in route.lines(islice(lines(), count)))
            if number or route is routes[0]:
                _publish(route, lambda taken=route: taken.lines(islice(lines(), count)), number)  # type: ignore[misc]


def retire(
    key: Annotated[
        str, typer.Argument(help="id of a tag, a content or a knowledge segment; `id/source` of an exemplar")
    ],
    to: Annotated[Word, typer.Option("--from", help="the topic")],
    replaced_by: Annotated[
        list[str] | None, typer.Option("--replaced-by", help="id of the successor; repeat it for a split")
    ] = None,
) -> None:
    """Publish a null value: the tag is retired, the content, the exemplar or the knowledge segment withdrawn.

    Retiring an exemplar of people withdraws all decisions on its content (topic `feedback`).

    With --replaced-by the tag is published again instead, with its successors. Its exemplars then count for the
    successor if there is one, and for none of several.
    """
    settings = load()
    record = tombstone(to, key)
    if replaced_by:
        if to != "tags":
            raise UserError(f"--replaced-by: only a tag has successors, expected --from tags, not --from {to}")
        tag, notes = _replaced(settings, key, replaced_by)
        record = encode_record(tag)
        for note in notes:
            console.say(note)
    topic = topic_name(settings.topics, to)
    if to == "exemplars" and (of := split_exemplar_key(key))[1] == "people":
        record, topic = Record(of[0].encode(), None), settings.topics.feedback
    with console.bar("publishing", 1) as bar:
        send(TopicWriter(settings.kafka, topic), iter([record]), bar)
    if replaced_by:
        console.say(f"published {shorten(key)} to {topic}, replaced by {', '.join(map(shorten, replaced_by))}")
    else:
        console.say(f"published a null to {topic}")


def _replaced(settings: Settings, key: str, successors: Sequence[str]) -> tuple[Tag, list[str]]:
    """The tag, retired in favour of these, and a note on each that not all contents see which see the tag.

    Raises UserError if one is not in force, Poison for its own id.
    """
    found = current_tags(settings, [key, *successors])
    topic = settings.topics.tags
    if key not in found:
        raise UserError(f"{shorten(key)} is not a tag on topic {topic}")
    for one in successors:
        if one not in found:
            raise UserError(f"--replaced-by: {shorten(one)} is not a tag on topic {topic}")
        if one != key and (next_ := found[one].replaced_by):
            raise UserError(
                f"--replaced-by: {shorten(one)} is retired itself, in favour of {', '.join(map(shorten, next_))}"
            )
    old = found[key]
    notes = [
        f"note: {shorten(one)} is only for {', '.join(map(shorten, found[one].scopes))}: other contents that see "
        f"{shorten(key)} get no tag in its place"
        for one in dict.fromkeys(successors)
        if widens(found[one].scopes, old.scopes)
    ]
    return parse(encode(old.model_copy(update={"replaced_by": tuple(dict.fromkeys(successors))})), Tag), notes


def tombstone(to: Word, key: str) -> Record:
    """The record that retires `key`. Raises Poison for a key that no record of that topic can have."""
    record = Record(key.encode(errors="surrogateescape"), None)
    DECODERS[to](record)
    return record


def topic_name(names: TopicSettings, word: Word) -> str:
    """The configured name of a topic."""
    return {
        "content": names.content,
        "tags": names.tags,
        "exemplars": names.exemplars,
        "knowledge": names.knowledge,
        "feedback": names.feedback,
    }[word]


def send(writer: TopicWriter, records: Iterator[Record], bar: console.Bar) -> None:
    """Produce records and wait for all acknowledgements. Raises UserError or DependencyDown if one fails."""
    with writer:
        for record in records:
            writer.send(record)
            bar.to(writer.confirmed)
    bar.to(writer.confirmed)


def _routes(settings: Settings, to: Word, who: str) -> Sequence[Route]:
    """The routes of a file's lines: all to one topic, except exemplars, which go to the topic of their source."""
    kafka, names = settings.kafka, settings.topics
    if to != "exemplars":
        return [Route(kafka, topic_name(names, to), lambda line: encode_record(files.READERS[to](line)))]
    run = Publishing(who)

    def decided(line: files.Line) -> Record | None:
        exemplar = files.exemplar_of(line)
        return encode_record(run.decision(exemplar)) if exemplar.source == "people" else None

    return [Route(kafka, names.feedback, decided), Route(kafka, names.exemplars, _machines)]


def _machines(line: files.Line) -> Record | None:
    exemplar = files.exemplar_of(line)
    return encode_record(exemplar) if exemplar.source == "machine" else None


def _require_right(lines: Iterator[files.Line], routes: Sequence[Route]) -> int:
    """The number of lines. Prints each wrong one, then raises CheckFailed."""
    routes[0].writer  # noqa: B018 - report a missing topic before any line is read
    right = wrong = 0
    for line in lines:
        try:
            for route in routes:
                record = route.record_of(line)
                if record is not None and route.writer.limit is not None:
                    route.writer.limit.check(record)
            right += 1
        except Poison as error:
            wrong += 1
            console.say(f"{line.place}: {error}")
    if wrong:
        raise CheckFailed(f"{console.wrong_lines(wrong)}, nothing was published")
    return right


def _publish(route: Route, lines: Callable[[], Iterator[tuple[files.Line, Record]]], count: int) -> None:
    try:
        with console.bar(f"publishing to {route.topic}", count) as bar:
            send(route.writer, (record for _, record in lines()), bar)
    finally:
        console.say(_published(route.writer, route.topic, (line for line, _ in lines()), count))


def _published(writer: TopicWriter, topic: str, lines: Iterator[files.Line], count: int) -> str:
    """The number of published records, and the lines of those that are not confirmed."""
    if writer.confirmed == count:
        return f"published {count} record{'s' * (count != 1)} to {topic}"
    stretches = groupby(enumerate(lines), lambda line: _is_confirmed(writer, line[0]))
    missing = ", ".join(_places(line for _, line in stretch) for confirmed, stretch in stretches if not confirmed)
    return f"published {writer.confirmed} of {count} records to {topic}; not confirmed: {missing}"


def _places(stretch: Iterator[files.Line]) -> str:
    """The first and the last line of a stretch. Lines between are not kept: a file may be larger than memory."""
    first = next(stretch)
    last = deque(stretch, maxlen=1)
    return f"{first.place}-{last[0].number}" if last else first.place


def _is_confirmed(writer: TopicWriter, number: int) -> bool:
    return number < writer.sent and number not in writer.unconfirmed
