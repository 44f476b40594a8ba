"""`tagbus demo`: real descriptions through a real consumer, on one machine, with one command.

It starts a broker, a joiner and a worker (`tagbus feedback` and `tagbus run`, as a user would), publishes the example
tags, exemplars and contents, and shows the results. The mock cluster has no transactions: delivery is at least once;
with Apache Kafka, exactly once.
"""

import base64
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Annotated, Literal, cast

import numpy as np
import typer

from tagbus.stream import quality
from tagbus.stream.app import console, files
from tagbus.stream.app.components import packaged
from tagbus.stream.app.data.examples import example
from tagbus.stream.cli.create import create_all
from tagbus.stream.cli.records.publish import send
from tagbus.stream.cli.records.tail import as_table, tagged_table
from tagbus.stream.config import EncoderSettings, Settings
from tagbus.stream.contract.codec import (
    Origin,
    Record,
    Tombstone,
    decode_tagged,
    encode_record,
    read_source,
)
from tagbus.stream.contract.events import Content, Exemplar, Tag, TaggedContent
from tagbus.stream.errors import DependencyDown, UserError
from tagbus.stream.feedback.published import Publishing
from tagbus.stream.kafka.message import record_of
from tagbus.stream.kafka.reader import TopicReader
from tagbus.stream.kafka.writer import TopicWriter
from tagbus.stream.local.apache import ApacheKafka
from tagbus.stream.local.mock import MockCluster
from tagbus.stream.local.worker import LocalWorker

Kind = Literal["mock", "apache"]
EncoderKind = Literal["in_process", "triton"]
PARTITIONS = 4
DEADLINE_SECONDS = 60.0
SHOWN = 4


@dataclass(slots=True)
class Outcomes:
    """The outcomes so far, by source record on `content`: duplicates count once."""

    reader: TopicReader
    dead_letters: str
    tagged: dict[Origin, TaggedContent] = field(default_factory=dict)
    dead: dict[Origin, Record] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.tagged) + len(self.dead)

    def until(self, count: int, bar: console.Bar) -> None:
        """Read until `count` records of `content` have an outcome. Raises DependencyDown after a minute."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self.count < count:
            before = self.count
            self._read()
            bar.advance(self.count - before)
            if self.count > before:
                deadline = time.monotonic() + DEADLINE_SECONDS
            elif time.monotonic() > deadline:
                raise DependencyDown(f"{count - self.count} of {count} events had no outcome after a minute")

    def of(self, content_id: str) -> TaggedContent:
        """The latest result of a content."""
        return [result for result in self.tagged.values() if result.id == content_id][-1]

    def _read(self) -> None:
        for message in self.reader.read(500, 0.2).messages:
            record = record_of(message)
            if message.topic() == self.dead_letters:
                self.dead[read_source(record.headers)] = record
            elif not isinstance(event := decode_tagged(record), Tombstone):
                self.tagged[read_source(record.headers)] = event


def demo(
    kafka: Annotated[Kind, typer.Option("--kafka", help="mock: at least once; apache: exactly once, needs Java")] = (
        "mock"
    ),
    encoder: Annotated[
        EncoderKind, typer.Option("--encoder", help="triton: a real tritonserver, installed the first time (374 MB)")
    ] = "in_process",
) -> None:
    """Tag 600 descriptions of software from Kafka to Kafka, all on this machine. Ends with a line of JSON."""
    started = time.monotonic()
    # The default handler would end only this process, and the worker would run forever.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with ExitStack() as stack:
        settings = _broker(kafka, stack).model_copy(update={"encoder": _encoder(encoder, stack)})
        report = Demo(settings, stack).run()
    seconds = round(time.monotonic() - started, 1)
    typer.echo(json.dumps({**report, "seconds": seconds, "delivery": _delivery(kafka), "encoder": encoder}))


def _delivery(kafka: Kind) -> Literal["exactly_once", "at_least_once"]:
    return "exactly_once" if kafka == "apache" else "at_least_once"


def _broker(kafka: Kind, stack: ExitStack) -> Settings:
    """Start the broker, create the topics, and print its delivery guarantee."""
    if kafka == "apache":
        console.say("starting Apache Kafka (the first time it is fetched from Maven Central); delivery: exactly once")
        settings = _settings(stack.enter_context(ApacheKafka()).address, kafka)
        create_all(settings)
        return settings
    cluster = stack.enter_context(MockCluster())
    console.say("started librdkafka's mock cluster in this process; it has no transactions, so delivery: at least once")
    settings = _settings(cluster.address, kafka)
    names = settings.topics
    for name in (
        *(names.content, names.tags, names.exemplars, names.tagged, names.dead_letters, names.versions),
        *(names.feedback, names.feedback_state, names.feedback_dead_letters),
    ):
        cluster.topic(name, PARTITIONS)
    return settings


def _encoder(kind: EncoderKind, stack: ExitStack) -> EncoderSettings:
    """Start the server if needed, and return the worker's encoder settings."""
    if kind == "in_process":
        return EncoderSettings()
    try:
        from tagbus.stream.local.triton import TritonServer
    except ImportError as error:
        raise UserError(f"--encoder triton needs tritonclient ({error}): pip install 'tagbus[triton]'") from None
    console.say("starting tritonserver (the first time its environment is installed: 374 MB)")
    return EncoderSettings(kind="triton", address=stack.enter_context(TritonServer()).address)


def _settings(address: str, kafka: Kind) -> Settings:
    base = Settings.model_construct()
    return Settings.model_construct(
        kafka=base.kafka.model_copy(update={"brokers": address, "delivery": _delivery(kafka), "instance": "demo"}),
        topics=base.topics.model_copy(update={"partitions": PARTITIONS}),
    )


class Demo:
    """The scenes of the demo, run in order with one broker, one joiner and one worker."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._published = 0

    def run(self) -> dict[str, object]:
        """Run all scenes. Returns the metrics, quality in percent."""
        tags = files.all_of(example("tags.jsonl"), files.tag_of)
        exemplars = files.all_of(example("exemplars.jsonl"), files.exemplar_of)
        joiner = self._stack.enter_context(LocalWorker(self._settings, command="feedback"))
        self._publish("tags", [encode_record(tag) for tag in tags])
        self._decide(exemplars, joiner)
        if trained := packaged():
            console.say("the worker also has the components shipped in the package")
        worker = self._stack.enter_context(LocalWorker(self._settings, trained))
        with console.bar("worker: reading tags and exemplars into memory", len(tags) + len(exemplars)) as bar:
            worker.wait_until_ready(lambda remaining: bar.to(len(tags) + len(exemplars) - remaining))
        outcomes = self._outcomes()
        try:
            rate = self._contents(outcomes)
            self._show(outcomes)
            figures = _quality(outcomes)
            self._new_tag(outcomes)
        except DependencyDown as error:
            raise DependencyDown(f"{error}; the end of the worker's log:\n{worker.tail()}") from None
        worker.stop()
        joiner.stop()
        console.say("worker stopped by SIGTERM: drained and left the group; so did the joiner")
        return {
            "events": self._published,
            "tagged": len(outcomes.tagged),
            "dead_lettered": len(outcomes.dead),
            "tags": len(tags),
            "exemplars": len(exemplars),
            **figures,
            **_ran(outcomes),
            "contents_per_second": round(rate, 1),
        }

    def _outcomes(self) -> Outcomes:
        names = self._settings.topics
        reader = self._stack.enter_context(TopicReader(self._settings.kafka))
        reader.discover([names.tagged, names.dead_letters])
        return Outcomes(reader, names.dead_letters)

    def _publish(self, topic: Literal["content", "tags", "feedback"], records: Sequence[Record]) -> None:
        name = cast(str, getattr(self._settings.topics, topic))
        with console.bar(f"publishing {len(records)} to {name}", len(records)) as bar:
            send(TopicWriter(self._settings.kafka, name), iter(records), bar)
        if topic == "content":
            self._published += len(records)

    def _decide(self, exemplars: Sequence[Exemplar], joiner: LocalWorker) -> None:
        """Publish what people said of the exemplars, and wait until the joiner has made exemplars of it."""
        decided = Publishing()
        self._publish("feedback", [encode_record(decided.decision(one)) for one in exemplars])
        left = {one.key.encode() for one in exemplars}
        deadline = time.monotonic() + DEADLINE_SECONDS
        with (
            console.bar("joiner: what people decided becomes exemplars", len(left)) as bar,
            TopicReader(self._settings.kafka) as reader,
        ):
            reader.discover([self._settings.topics.exemplars])
            while left:
                found = {message.key() for message in reader.read(500, 0.2).messages}
                if found:
                    deadline = time.monotonic() + DEADLINE_SECONDS
                elif time.monotonic() > deadline:
                    raise DependencyDown(
                        f"no exemplar came for a minute; the end of the joiner's log:\n{joiner.tail()}"
                    )
                left -= found
                bar.to(len(exemplars) - len(left))

    def _contents(self, outcomes: Outcomes) -> float:
        """Publish contents and broken events and wait for all outcomes. Returns contents per second."""
        contents = files.all_of(example("content.jsonl"), files.content_of)
        started = time.monotonic()
        self._publish("content", [*(encode_record(content) for content in contents), *broken()])
        with console.bar("tagging", self._published) as bar:
            outcomes.until(self._published, bar)
        return self._published / (time.monotonic() - started)

    def _show(self, outcomes: Outcomes) -> None:
        contents = files.all_of(example("content.jsonl"), files.content_of)
        titles = {content.id: content.title or content.text for content in contents}
        known = _answers()
        names = {tag.id: tag.name for tag in _all_tags()}
        for content_id in list(titles)[:SHOWN]:
            console.stdout.print(tagged_table(outcomes.of(content_id), titles[content_id]))
            console.print_line("people gave it: " + ", ".join(names[tag] for tag in sorted(known[content_id])) + "\n")
        topic = outcomes.dead_letters
        console.print_line(f"{len(outcomes.dead)} broken events on {topic}, byte for byte, with reasons:")
        for record in outcomes.dead.values():
            console.print_line(str(as_table("content.dlq", record)))

    def _new_tag(self, outcomes: Outcomes) -> None:
        """Publish a tag while the service runs: it is found as soon as the taxonomy version includes it."""
        tag = files.all_of(example("new_tag.json"), files.tag_of)[0]
        contents = files.all_of(example("new_tag_content.jsonl"), files.content_of)
        before = self._tag(outcomes, contents[0])
        console.print_line(f"\nbefore tag '{tag.name}' exists: {_names(before)}")
        self._publish("tags", [encode_record(tag)])
        after = self._until_shown(outcomes, before)
        found = [self._tag(outcomes, content) for content in contents]
        hits = sum(tag.id in {one.id for one in result.tags} for result in found)
        console.print_line(f"after taxonomy version {after.versions.taxonomy} shows it: {_names(found[0])}")
        console.print_line(f"'{tag.name}' found for {hits} of {len(contents)} contents that people gave it to\n")

    def _until_shown(self, outcomes: Outcomes, before: TaggedContent) -> TaggedContent:
        """Publish a content repeatedly until a result's taxonomy version has advanced."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        number = 0
        while time.monotonic() < deadline:
            number += 1
            result = self._tag(outcomes, Content(id=f"demo-version-{number}", title="which taxonomy is this"))
            if result.versions.taxonomy != before.versions.taxonomy:
                return result
        raise DependencyDown("the new tag did not show in the taxonomy version within a minute")

    def _tag(self, outcomes: Outcomes, content: Content) -> TaggedContent:
        self._publish("content", [encode_record(content)])
        with console.bar("tagging", 1) as bar:
            outcomes.until(self._published, bar)
        return outcomes.of(content.id)


def broken() -> Iterator[Record]:
    """Events that can never be tagged, each invalid in a different way."""
    for line in files.read_lines(example("broken.jsonl")):
        event = json.loads(line.value)
        value = base64.b64decode(event["base64"]) if "base64" in event else _repeated(event)
        yield Record(None if event["key"] is None else event["key"].encode(), value)


def _answers() -> dict[str, frozenset[str]]:
    rows = (json.loads(line.value) for line in files.read_lines(example("answers.jsonl")))
    return {row["id"]: frozenset(row["accepted"]) for row in rows}


def _repeated(event: dict[str, str]) -> bytes:
    """A value too long to store in the repository."""
    return (event["before"] + event["repeat"] * int(event["times"]) + event["after"]).encode()


def _quality(outcomes: Outcomes) -> dict[str, float]:
    """Quality against people's tags, in percent."""
    known = _answers()
    results = [result for result in outcomes.tagged.values() if result.id in known]
    number = {tag.id: index for index, tag in enumerate(_all_tags())}
    ranked = np.full((len(results), 10), -1, np.int64)
    for row, result in enumerate(results):
        ranked[row, : len(result.tags)] = [number[tag.id] for tag in result.tags[:10]]
    found = quality.Ranked(ranked, np.zeros(ranked.shape))
    truth = [np.array(sorted(number[tag] for tag in known[result.id]), np.int64) for result in results]
    return {
        "p_at_1": round(quality.precision_at(found, truth, 1), 2),
        "p_at_5": round(quality.precision_at(found, truth, 5), 2),
        "r_at_10": round(quality.recall_at(found, truth, 10), 2),
    }


def _ran(outcomes: Outcomes) -> dict[str, object]:
    """What gave the figures, as the results say: the release, the steps of most of them, the components' versions."""
    results = list(outcomes.tagged.values())
    path, _ = Counter("+".join(result.path) for result in results).most_common(1)[0]
    versions = results[0].versions
    return {"release": versions.release, "path": path, "components": dict(versions.components)}


def _all_tags() -> list[Tag]:
    return files.all_of(example("tags.jsonl"), files.tag_of)


def _names(result: TaggedContent) -> str:
    return ", ".join(f"{tag.name} {tag.confidence:.2f}" for tag in result.tags[:5])
