"""The scenes of the demo: real descriptions through a real consumer, on one machine."""

import base64
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np

from tagbus.stream import quality
from tagbus.stream.app import console
from tagbus.stream.app.components import packaged
from tagbus.stream.app.data.examples import example
from tagbus.stream.app.places import files
from tagbus.stream.cli.demo.judge import DemoJudge
from tagbus.stream.cli.demo.whole import Whole
from tagbus.stream.cli.records.publish import send
from tagbus.stream.cli.records.tail import as_table, tagged_table
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import (
    Origin,
    Record,
    Tombstone,
    decode_tagged,
    encode_record,
    read_source,
)
from tagbus.stream.contract.events import Content, Exemplar, Tag, TaggedContent
from tagbus.stream.errors import DependencyDown
from tagbus.stream.feedback.published import Publishing
from tagbus.stream.kafka.message import record_of
from tagbus.stream.kafka.reader import TopicReader
from tagbus.stream.kafka.writer import TopicWriter
from tagbus.stream.local.worker import LocalWorker

DEADLINE_SECONDS = 60.0
SHOWN = 4


@dataclass(slots=True)
class Outcomes:
    """The outcomes so far, keyed by source record on `content`, so that duplicates count once."""

    reader: TopicReader
    dead_letters: str
    patience: float = DEADLINE_SECONDS
    tagged: dict[Origin, TaggedContent] = field(default_factory=dict)
    dead: dict[Origin, Record] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.tagged) + len(self.dead)

    def until(self, count: int, bar: console.Bar) -> None:
        """Read until `count` records of `content` have an outcome. Raises DependencyDown if none comes for too long."""
        deadline = time.monotonic() + self.patience
        while self.count < count:
            before = self.count
            self._read()
            bar.advance(self.count - before)
            if self.count > before:
                deadline = time.monotonic() + self.patience
            elif time.monotonic() > deadline:
                raise DependencyDown(
                    f"{count - self.count} of {count} events had no outcome after {self.patience:.0f} s"
                )

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


class Demo:
    """The scenes of the demo, run in order with one broker, one joiner and one worker."""

    def __init__(
        self, settings: Settings, stack: ExitStack, judge: DemoJudge | None = None, whole: Whole | None = None
    ) -> None:
        """`judge`: the language model that the worker asks; `whole`: the shared memory and the views; None: none."""
        self._settings = settings
        self._stack = stack
        self._judge = judge
        self._whole = whole
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
        asked = {} if self._judge is None else self._judge.variables(trained, self._stack)
        shared = {} if self._whole is None else self._share(self._whole, len(tags) + len(exemplars))
        worker = self._stack.enter_context(LocalWorker(self._settings, {**trained, **asked, **shared}))
        with console.bar("worker: reading tags and exemplars into memory", len(tags) + len(exemplars)) as bar:
            worker.wait_until_ready(lambda remaining: bar.to(len(tags) + len(exemplars) - remaining))
        outcomes = self._outcomes()
        try:
            rate = self._contents(outcomes)
            self._show(outcomes)
            figures = _quality(outcomes) | self._judged(outcomes)
            self._new_tag(outcomes)
            # Last: it publishes further contents, whose results the other scenes would count as theirs.
            figures |= self._served(outcomes, rate)
        except DependencyDown as error:
            raise DependencyDown(f"{error}; the end of the worker's log:\n{worker.tail()}") from None
        worker.stop()
        joiner.stop()
        console.say("worker stopped by SIGTERM: drained and left the group; so did the joiner")
        if self._whole is not None:
            self._whole.stop()
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
        patience = DEADLINE_SECONDS if self._judge is None else self._judge.patience
        return Outcomes(reader, names.dead_letters, patience)

    def _judged(self, outcomes: Outcomes) -> dict[str, object]:
        """The cost and outcome of judging."""
        return {} if self._judge is None else self._judge.figures(list(outcomes.tagged.values()), _answers())

    def _share(self, whole: Whole, records: int) -> dict[str, str]:
        """Start indexer and views. Returns the worker's settings for the shared memory."""
        whole.index(records)
        whole.view()
        return whole.memory

    def _served(self, outcomes: Outcomes, rate: float) -> dict[str, object]:
        """The figures of the views and recommenders, latency included."""
        if self._whole is None:
            return {}
        contents = files.all_of(example("content.jsonl"), files.content_of)
        return self._whole.figures(rate, {result.id: result for result in outcomes.tagged.values()}, contents)

    def _publish(self, topic: Literal["content", "tags", "feedback"], records: Sequence[Record]) -> None:
        name = cast(str, getattr(self._settings.topics, topic))
        with console.bar(f"publishing {len(records)} to {name}", len(records)) as bar:
            send(TopicWriter(self._settings.kafka, name), iter(records), bar)
        if topic == "content":
            self._published += len(records)

    def _decide(self, exemplars: Sequence[Exemplar], joiner: LocalWorker) -> None:
        """Publish people's decisions, and wait until the joiner has turned them into exemplars."""
        decided = Publishing()
        self._publish("feedback", [encode_record(decided.decision(one)) for one in exemplars])
        left = {one.key.encode() for one in exemplars}
        deadline = time.monotonic() + DEADLINE_SECONDS
        with (
            console.bar("joiner: turning people's decisions into exemplars", len(left)) as bar,
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
        """Publish a tag while the service runs. It is found as soon as the taxonomy version includes it."""
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


def _quality(outcomes: Outcomes) -> dict[str, object]:
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
    """The provenance of the figures, from the results: the release, the most frequent path, the component versions."""
    results = list(outcomes.tagged.values())
    path, _ = Counter("+".join(result.path) for result in results).most_common(1)[0]
    versions = results[0].versions
    return {"release": versions.release, "path": path, "components": dict(versions.components)}


def _all_tags() -> list[Tag]:
    return files.all_of(example("tags.jsonl"), files.tag_of)


def _names(result: TaggedContent) -> str:
    return ", ".join(f"{tag.name} {tag.confidence:.2f}" for tag in result.tags[:5])
