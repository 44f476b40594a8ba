"""`tagbus topics create`, `publish` and `retire`: the topics, for people at a terminal."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tagbus.stream.app import console, files
from tagbus.stream.app.releases.backfill import outputs
from tagbus.stream.config import KafkaSettings, Settings, TopicSettings, load
from tagbus.stream.contract.codec import DECODERS, Record, encode_record
from tagbus.stream.errors import CheckFailed, DependencyDown, Poison
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.access import failure
from tagbus.stream.kafka.errors import classify, error_of
from tagbus.stream.kafka.rights import REFUSED
from tagbus.stream.kafka.writer import TopicWriter

Word = Literal["content", "tags", "exemplars", "knowledge"]
# Tombstones must outlive a memory that is down for a while: see memory.tombstone_hours.
HOUR_MS = 3_600_000
# How long the brokers may take to make the topics, and to show them.
SECONDS = 30.0

topics = typer.Typer(help="Make the topics.", no_args_is_help=True)


@topics.callback()
def _group() -> None:
    """Make the topics."""


@topics.command()
def create(
    output: Annotated[str | None, typer.Option("--output", help="those of a backfill with this output instead")] = None,
) -> None:
    """Create the topics that are not there yet: `tags`, `exemplars`, `knowledge`, `content.versions` and `releases`
    compacted, the others kept by time."""
    settings = load()
    if output is None:
        create_all(settings)
        return
    own = settings.model_copy(update={"topics": outputs(settings.topics, output)})
    live = layout(settings)
    _create(settings, {name: config for name, config in layout(own).items() if name not in live})


def create_all(settings: Settings) -> None:
    """Create what is not there yet, and say what was. Raises UserError or DependencyDown."""
    _create(settings, layout(settings))


def _create(settings: Settings, configurations: Mapping[str, dict[str, str]]) -> None:
    admin = clients.admin(settings.kafka)
    counts = {name: 1 if name == settings.topics.releases else settings.topics.partitions for name in configurations}
    wanted = [
        NewTopic(name, counts[name], settings.topics.replication, config=config)
        for name, config in configurations.items()
    ]
    for name, future in admin.create_topics(wanted, request_timeout=SECONDS).items():
        try:
            future.result()
            console.say(f"created {name} with {counts[name]} partition{'s' * (counts[name] > 1)}")
        except KafkaException as error:
            if error_of(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise failure(error, settings.kafka, f"topic {name} was not created", name, "Create") from None
            console.say(f"{name} exists already")
    for name in configurations:
        _wait_until_shown(settings.kafka, admin, name)


def _wait_until_shown(kafka: KafkaSettings, admin: AdminClient, name: str) -> None:
    """The broker says that a topic is made some milliseconds before it knows it. Raises UserError, DependencyDown."""
    deadline = time.monotonic() + SECONDS
    try:
        while error := admin.list_topics(name, SECONDS).topics[name].error:
            if error.code() in REFUSED and (refused := classify(error, kafka, name, "Describe")):
                raise refused
            if time.monotonic() > deadline:
                raise DependencyDown(f"topic {name} does not show within {SECONDS:.0f} s")
            time.sleep(0.05)
    except KafkaException as error:
        raise DependencyDown(f"the topics were created, but: {error_of(error).str()}") from None


def layout(settings: Settings) -> dict[str, dict[str, str]]:
    """Every topic and the configuration that it needs."""
    names = settings.topics
    kept = str(int(settings.memory.tombstone_hours * HOUR_MS))
    compacted = {"cleanup.policy": "compact", "delete.retention.ms": kept}
    return {
        names.content: {"cleanup.policy": "delete"},
        names.tags: compacted,
        names.exemplars: compacted,
        names.knowledge: compacted,
        names.tagged: {"cleanup.policy": "delete"},
        names.dead_letters: {"cleanup.policy": "delete"},
        names.versions: {"cleanup.policy": "compact"},
        names.releases: {"cleanup.policy": "compact"},
    }


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
