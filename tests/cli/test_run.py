"""`tagbus run` as a user starts it, with the real encoder, on Apache Kafka, exactly once."""

import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest
from confluent_kafka import Message

from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record, Tombstone, decode_tagged, encode_record
from tagbus.stream.contract.events import Content, Tag, TaggedContent
from tagbus.stream.contract.fields import TEXT_CHARS, Event
from tagbus.stream.encoder.release import default_folder, load_release
from tagbus.stream.kafka.message import record_of
from tagbus.stream.local.worker import LocalWorker
from tests.bus.harness import event, exactly_once, until_all_out
from tests.cli.harness import Slice, scripts
from tests.conftest import Broker
from tests.support import consume_all, create_topics, get, produce, unique, wait_until

pytestmark = pytest.mark.kafka

COMPACT = {"cleanup.policy": "compact"}
NEW = Tag(id="new", name="gravitational lensing")


@dataclass
class Bus:
    """Topics of a test's own with the slice in the memory topics, and the settings of a worker on them."""

    address: str
    names: dict[str, str]
    settings: Settings
    number: int = 0
    seen: dict[str, TaggedContent] = field(default_factory=dict)

    def send(self, topic: str, records: Sequence[Record]) -> None:
        produce(self.address, self.names[topic], [(record.key, record.value, []) for record in records])

    def publish(self, topic: str, events: Sequence[Event]) -> None:
        self.send(topic, [encode_record(event) for event in events])  # type: ignore[arg-type]

    def tag(self, title: str) -> TaggedContent:
        """Publish a content with this title and wait for its result."""
        self.number += 1
        name = f"asked-{self.number}"
        self.publish("content", [Content(id=name, title=title)])
        found = consume_all(self.address, self.names["tagged"], until=partial(_has, name.encode()))
        result = decode_tagged(record_of(next(message for message in found if message.key() == name.encode())))
        assert not isinstance(result, Tombstone)
        return result

    def until_shown(self, before: Mapping[str, int]) -> TaggedContent:
        """Ask until a result's taxonomy version has moved on."""

        def moved() -> TaggedContent | None:
            result = self.tag("which taxonomy is this")
            return result if result.versions.taxonomy != before else None

        return wait_until(moved, 120, "a taxonomy version that has moved on")  # type: ignore[return-value]


def _has(key: bytes, messages: list[Message]) -> bool:
    return any(message.key() == key for message in messages)


def bus(kafka: Broker, cutting: Slice) -> Bus:
    words = ("content", "tags", "exemplars", "tagged", "dead_letters", "versions", "feedback")
    names = {word: unique(word) for word in words}
    create_topics(
        kafka.address,
        {
            names["content"]: (2, {"max.message.bytes": "4000000"}),
            names["tags"]: (2, COMPACT),
            names["exemplars"]: (1, COMPACT),
            names["tagged"]: 2,
            names["dead_letters"]: 1,
            names["versions"]: (2, COMPACT),
            names["feedback"]: 1,
        },
    )
    base = Settings.model_construct()
    own = {"brokers": kafka.address, "group": unique("group"), "instance": unique("instance")}
    settings = Settings.model_construct(
        kafka=base.kafka.model_copy(update=own), topics=base.topics.model_copy(update=names)
    )
    made = Bus(kafka.address, names, settings)
    made.publish("tags", cutting.tags)
    made.publish("exemplars", cutting.exemplars)
    return made


@contextmanager
def ready(made: Bus, **extra: str) -> Iterator[LocalWorker]:
    """A worker that is ready; it must end well."""
    with LocalWorker(made.settings, extra) as worker:
        worker.wait_until_ready()
        yield worker
        assert worker.stop() == 0


@pytest.fixture(scope="module")
def service(kafka: Broker, cutting: Slice) -> Iterator[tuple[Bus, LocalWorker]]:
    """One worker for all tests that leave it running."""
    made = bus(kafka, cutting)
    with ready(made) as worker:
        yield made, worker


@pytest.fixture
def running(service: tuple[Bus, LocalWorker]) -> Bus:
    return service[0]


TAGGED = {
    **{f"script-{name}": event(f"script-{name}", text) for name, text in scripts().items()},
    "at the limit": event("limit", "word " * (TEXT_CHARS // 5)),
    "no space": event("solid", "a" * TEXT_CHARS),
    "nul": event("nul", "a\x00b"),
    "like a path": event("../../etc/passwd", "%s {0} ${HOME}"),
}
SET_ASIDE = {
    "not UTF-8": b"\xff\xfe\x00",
    "no JSON": b"A plain line of text",
    "cut off": b'{"id": "x", "title": "Fore',
    "wrong types": b'{"id": 7, "text": ["x"]}',
    "no id": b'{"text": "x"}',
    "empty text": event("empty", ""),
    "lone surrogate": b'{"id": "l", "text": "\\ud800"}',
    "surrogate bytes": b'{"id": "l", "text": "\xed\xa0\x80"}',
    "above the limit": event("above", "x" * (TEXT_CHARS + 1)),
    "1 MB without a space": event("solid", "a" * 999_900),
    "deep": b"[" * 100_000,
    "no bytes": b"",
}


class TestService:
    def test_hostile_inputs_come_out_within_10_seconds(self, service: tuple[Bus, LocalWorker]) -> None:
        made, worker = service
        before = len(consume_all(made.address, made.names["content"]))
        letters = len(consume_all(made.address, made.names["dead_letters"]))
        hostile = [Record(None, value) for value in (*TAGGED.values(), *SET_ASIDE.values())]
        made.send("content", hostile)
        until_all_out(made.address, made.names, before + len(hostile), seconds=10)
        exactly_once(made.address, made.names)
        assert len(consume_all(made.address, made.names["dead_letters"])) - letters == len(SET_ASIDE)
        assert worker.process.poll() is None

    def test_results_say_which_release_and_taxonomy_gave_them(self, running: Bus, cutting: Slice) -> None:
        result = running.tag(cutting.tags[0].name)
        assert result.tags[0].id == cutting.tags[0].id
        assert result.versions.release == load_release(default_folder()).name
        assert set(result.versions.taxonomy) == {"0", "1"}
        # Every tag of the slice is applied: an offset for each, counted from 0.
        assert sum(offset + 1 for offset in result.versions.taxonomy.values()) >= len(cutting.tags)

    def test_a_new_tag_is_found_once_the_version_shows_it_and_a_retired_one_no_longer(self, running: Bus) -> None:
        title = "Gravitational lensing by galaxies"
        before = running.tag(title)
        assert NEW.id not in {tag.id for tag in before.tags}
        running.publish("tags", [NEW])
        shown = running.until_shown(before.versions.taxonomy)
        assert running.tag(title).tags[0].id == NEW.id
        running.send("tags", [Record(NEW.id.encode(), None)])
        running.until_shown(shown.versions.taxonomy)
        assert NEW.id not in {tag.id for tag in running.tag(title).tags}

    def test_a_withdrawn_content_is_withdrawn_on_tagged(self, running: Bus) -> None:
        running.send("content", [Record(b"gone", None)])
        found = consume_all(running.address, running.names["tagged"], until=partial(_has, b"gone"))
        assert [message.value() for message in found if message.key() == b"gone"] == [None]

    def test_it_says_how_it_is(self, service: tuple[Bus, LocalWorker], cutting: Slice) -> None:
        made, worker = service
        made.tag("Bees")
        assert get(worker.port, "/livez") == (200, "ok\n")
        assert get(worker.port, "/readyz") == (200, "ok\n")
        status, metrics = get(worker.port, "/metrics")
        assert status == 200
        figures = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
        assert float(figures['tagbus_contents_total{outcome="tagged"}']) >= 1
        assert float(figures["tagbus_taxonomy_tags"]) >= len(cutting.tags)
        assert float(figures["tagbus_memory_exemplars"]) == len(cutting.exemplars)
        assert float(figures["tagbus_ready"]) == 1


def test_content_waits_until_the_memory_is_complete(kafka: Broker, cutting: Slice) -> None:
    """Not ready before the gate opens, and what was there before is tagged by the whole memory."""
    made = bus(kafka, cutting)
    made.publish("content", cutting.contents)
    answers: list[tuple[int, str]] = []
    with ExitStack() as stack:
        worker = stack.enter_context(LocalWorker(made.settings, {"TAGBUS_ENCODER__THREADS": "1"}))

        def is_ready() -> bool:
            answer = get(worker.port, "/readyz")
            answers.append(answer)
            return answer[0] == 200

        wait_until(is_ready, 120, "a worker that is ready")
        until_all_out(made.address, made.names, len(cutting.contents))
        assert worker.stop() == 0
    waited = {words for status, words in answers if status == 503}
    assert any("the memory is not built yet" in words for words in waited)
    results = [json.loads(message.value() or b"") for message in consume_all(made.address, made.names["tagged"])]
    complete = [sum(offset + 1 for offset in one["versions"]["taxonomy"].values()) for one in results]
    assert complete == [len(cutting.tags)] * len(cutting.contents)


def test_sigterm_in_mid_batch_loses_nothing(kafka: Broker, cutting: Slice) -> None:
    made = bus(kafka, cutting)
    # Long texts on one thread, so that the stop comes when most are still to be tagged.
    many = [
        Content(id=f"{content.id}-{round}", text=f"{content.text} {round}\n" * 40)
        for round in range(4)
        for content in cutting.contents
    ]
    with LocalWorker(made.settings, {"TAGBUS_BATCH__CONTENTS": "16", "TAGBUS_ENCODER__THREADS": "1"}) as worker:
        worker.wait_until_ready()
        made.publish("content", many)
        until_all_out(made.address, made.names, 1)
        assert worker.stop() == 0
    out = len(consume_all(made.address, made.names["tagged"]))
    assert 0 < out < len(many)
    with ready(made):
        until_all_out(made.address, made.names, len(many))
    exactly_once(made.address, made.names)


@pytest.mark.skipif(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, reason="started with nohup")
def test_a_closed_terminal_stops_it_as_sigterm_does(kafka: Broker, cutting: Slice) -> None:
    made = bus(kafka, cutting)
    with LocalWorker(made.settings) as worker:
        worker.wait_until_ready()
        worker.process.send_signal(signal.SIGHUP)
        assert worker.process.wait(120) == 0
        assert "worker: stopped" in worker.tail()


def test_a_second_worker_of_the_same_name_ends_the_first_with_code_5(kafka: Broker, cutting: Slice) -> None:
    made = bus(kafka, cutting)
    with LocalWorker(made.settings) as first:
        first.wait_until_ready()
        with ready(made):

            def fenced() -> bool:
                """It learns that it has been fenced when it next publishes."""
                made.number += 1
                made.publish("content", [Content(id=f"{made.number}-{n}", title="Bees") for n in range(4)])
                return first.process.poll() is not None

            wait_until(fenced, 120, "the end of the first worker")
            assert first.process.returncode == 5
            assert "tagbus: another process has taken over" in first.tail()
            assert "each worker needs its own kafka.instance" in first.tail()
            assert "Traceback" not in first.tail()
            until_all_out(made.address, made.names, 4 * made.number)
    exactly_once(made.address, made.names)


def test_the_embedded_engine_serves_as_well(kafka: Broker, cutting: Slice) -> None:
    pytest.importorskip("qdrant_edge")
    made = bus(kafka, cutting)
    with ready(made, TAGBUS_MEMORY__KIND="embedded"):
        assert made.tag(cutting.tags[0].name).tags[0].id == cutting.tags[0].id
        made.publish("content", cutting.contents)
        until_all_out(made.address, made.names, len(cutting.contents) + 1)
    exactly_once(made.address, made.names)
