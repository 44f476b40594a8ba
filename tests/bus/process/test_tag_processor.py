"""TagProcessor: the outcome of each record of a batch. No Kafka here."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies

from tagbus.stream import telemetry
from tagbus.stream.bus.process.duplicates import fingerprint
from tagbus.stream.bus.process.isolation import CANARY, BatchTagger
from tagbus.stream.bus.process.tag_processor import TagProcessor
from tagbus.stream.bus.process.version_topic import VersionTopic
from tagbus.stream.bus.process.versions import PartitionVersions, Published
from tagbus.stream.bus.processor import Batch, RecordOutcome, Source
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record
from tagbus.stream.contract.events import Content, Degraded, TaggedContent
from tagbus.stream.errors import TooMuchPoison, Untaggable
from tagbus.stream.tagger import Failure
from tests.bus.harness import event
from tests.bus.taggers import TAG, Allergic, Down, Picky, Trivial, tagged

QUICK = Settings.model_validate({"retry": {"first_seconds": 0.001, "cap_seconds": 0.002}})


def batch(values: Sequence[bytes | None]) -> Batch:
    records = [Record(b"gone" if value is None else None, value) for value in values]
    sources = tuple(Source("content", 3, 10 + i, record) for i, record in enumerate(records))
    return Batch(("content", 3), 1, sources, 0, 0.0)


def process(tagger: BatchTagger, values: Sequence[bytes | None], settings: Settings = QUICK) -> list[RecordOutcome]:
    return asyncio.run(TagProcessor(settings, tagger).process(batch(values), lambda _: None))


def header(outcome: RecordOutcome, name: str) -> str:
    return (dict(outcome.outgoing[0].headers)[name] or b"").decode()


def contents(*names: str) -> list[bytes]:
    return [event(name) for name in names]


def test_there_is_an_outcome_for_each_record_in_order() -> None:
    outcomes = process(Trivial(), [event("a"), b"?", None, event("b")])
    assert [outcome.kind for outcome in outcomes] == ["tagged", "dead_lettered", "withdrawn", "tagged"]
    assert [header(outcome, "tagbus.source.offset") for outcome in outcomes] == ["10", "11", "12", "13"]


@given(
    strategies.lists(
        strategies.one_of(strategies.none(), strategies.binary(), strategies.text().map(event)), min_size=1, max_size=8
    )
)
def test_every_record_has_an_outcome(values: list[bytes | None]) -> None:
    outcomes = process(Trivial(), values)
    assert [header(outcome, "tagbus.source.offset") for outcome in outcomes] == [
        str(10 + i) for i in range(len(values))
    ]
    for value, outcome in zip(values, outcomes, strict=True):
        assert outcome.kind != "dead_lettered" or outcome.outgoing[0].value == value


def test_what_fails_alone_where_its_neighbours_pass_is_set_aside() -> None:
    tagger = Allergic(lambda content: content.id == "bad")
    outcomes = process(tagger, contents("a", "bad", "b"))
    assert [outcome.kind for outcome in outcomes] == ["tagged", "dead_lettered", "tagged"]
    assert (outcomes[1].stage, outcomes[1].reason) == ("tag", "Untaggable")
    assert header(outcomes[1], "__streams.errors.exception") == "Untaggable"
    # All three, its half of them, the content alone, and once more between two canaries
    assert header(outcomes[1], "tagbus.attempts") == "4"


def test_a_record_that_kafka_refuses_is_dead_lettered_with_the_published_version() -> None:
    values = [event("a", version=1), event("a", version=2), event("a", version=1), event("b"), None]
    refused = {index: Untaggable("publish", ()) for index in (1, 3, 4)}
    tagger, order = Trivial(), VersionTopic(QUICK)
    order._states.partitions = {("content", 3): PartitionVersions(Published(10), ready=True)}
    processor = TagProcessor(QUICK, tagger, order)
    outcomes = asyncio.run(processor.process(replace(batch(values), refused=refused), lambda _: None))
    assert [outcome.kind for outcome in outcomes] == [
        "tagged",
        "dead_lettered",
        "tagged",
        "dead_lettered",
        "dead_lettered",
    ]
    assert tagger.seen == [["a", "a"]]
    assert [(one.topic, one.value) for one in outcomes[1].outgoing[1:]] == [
        ("content.versions", b'{"version":1,"time":null}')
    ]
    assert all(len(outcome.outgoing) == 1 for outcome in outcomes[3:])


def test_a_batch_without_contents_does_not_ask_the_tagger() -> None:
    assert [outcome.kind for outcome in process(Down(), [b"?", None])] == ["dead_lettered", "withdrawn"]


def test_a_failure_keeps_its_stage() -> None:
    (outcome,) = process(Picky(lambda content: content.id != CANARY.id), contents("a"))
    assert (outcome.kind, outcome.stage) == ("dead_lettered", "encode")


def test_results_below_the_confidence_are_not_written_back() -> None:
    settings = Settings.model_validate({"tagger": {"write_back": 0.95}})
    (outcome,) = process(Trivial(), contents("a"), settings)
    assert [outgoing.topic for outgoing in outcome.outgoing] == ["tagged"]


def test_an_exemplar_that_is_written_back_fits_its_topic() -> None:
    settings = Settings.model_validate({"tagger": {"write_back": 0.5}})
    (outcome,) = process(Trivial(), [event("a", "Bees" + "\x01" * 399_996)], settings)
    assert all(len(outgoing.value or b"") <= settings.batch.record_bytes for outgoing in outcome.outgoing)
    assert [outgoing.key for outgoing in outcome.outgoing] == [b"a", b"a/machine"]


def test_a_text_that_begins_with_nothing_visible_is_not_written_back() -> None:
    settings = Settings.model_validate({"tagger": {"write_back": 0.5}})
    (outcome,) = process(Trivial(), [event("a", "\u200b" * 400_000 + "Bees")], settings)
    assert [outgoing.key for outgoing in outcome.outgoing] == [b"a"]


def test_an_exemplar_that_is_written_back_has_the_scopes_of_its_content() -> None:
    settings = Settings.model_validate({"tagger": {"write_back": 0.5}})
    (outcome,) = process(Trivial(), [b'{"id": "a", "title": "Bees", "scopes": ["news"]}'], settings)
    assert json.loads(outcome.outgoing[1].value or b"")["scopes"] == ["news"]


class Implying(Trivial):
    """Gives every content an additional tag that is implied by another one."""

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[TaggedContent | Failure]:
        above = TAG.model_copy(update={"id": "above", "stage": "hierarchy"})
        return [one.model_copy(update={"tags": (TAG, above)}) for one in map(tagged, contents)]


def test_a_tag_that_was_added_for_a_narrower_one_is_not_written_back() -> None:
    settings = Settings.model_validate({"tagger": {"write_back": 0.5}})
    (outcome,) = process(Implying(), contents("a"), settings)
    assert json.loads(outcome.outgoing[1].value or b"")["accepted"] == ["t1"]


class Revised(Trivial):
    """Has a settable revision; `while_tagging` is the revision that the next call changes it to."""

    def __init__(self) -> None:
        super().__init__()
        self.now: str | None = "one"
        self.while_tagging: str | None = None

    def revision(self) -> str | None:
        return self.now

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[TaggedContent | Failure]:
        self.now = self.while_tagging or self.now
        return await super().tag(contents)


class Stream:
    """A processor whose batches are committed immediately."""

    def __init__(self, settings: Settings = QUICK, tagger: Trivial | None = None) -> None:
        self.tagger = tagger or Trivial()
        self.processor = TagProcessor(settings, self.tagger)
        self.offset = 0

    def send(self, *records: Record, epoch: int = 1, commit: bool = True) -> list[RecordOutcome]:
        sources = tuple(
            Source("content", 3, self.offset + i, record, 1_700_000_000.0) for i, record in enumerate(records)
        )
        self.offset += len(records)
        batch = Batch(("content", 3), epoch, sources, 0, 0.0)
        outcomes = asyncio.run(self.processor.process(batch, lambda _: None))
        if commit:
            self.processor.published(batch, outcomes)
        return outcomes

    @property
    def tagged(self) -> int:
        return sum(len(seen) for seen in self.tagger.seen)


def content(name: str, text: str = "Some text.", **fields: object) -> Record:
    return Record(None, event(name, text, **fields))


def skipping() -> Settings:
    return Settings.model_validate({"triage": {"duplicates": "skip"}})


class TestDuplicates:
    def test_the_same_content_is_counted_tagged_and_published_again(self) -> None:
        before = telemetry.DUPLICATES._value.get()
        stream = Stream()
        (first,) = stream.send(content("a", title="T", metadata={"k": [1]}))
        (second,) = stream.send(content("a", title="T", metadata={"k": [1]}))
        assert stream.tagged == 2
        assert second.kind == "tagged"
        assert [(one.topic, one.key, one.value) for one in second.outgoing] == [
            (one.topic, one.key, one.value) for one in first.outgoing
        ]
        # Each names its input record.
        assert (header(first, "tagbus.source.offset"), header(second, "tagbus.source.offset")) == ("0", "1")
        assert telemetry.DUPLICATES._value.get() == before + 1

    def test_nothing_is_tagged_or_published_where_the_setting_says_so(self) -> None:
        before = telemetry.DUPLICATES._value.get()
        stream = Stream(skipping())
        outcomes = [*stream.send(content("a")), *stream.send(content("a"))]
        assert [(outcome.kind, len(outcome.outgoing)) for outcome in outcomes] == [("tagged", 1), ("duplicate", 0)]
        assert stream.tagged == 1
        assert telemetry.DUPLICATES._value.get() == before + 1

    @pytest.mark.parametrize(
        "other",
        [
            content("a", "Another text."),
            content("a", title="A title"),
            content("a", language="en"),
            content("a", time="2026-01-31T09:30:00Z"),
            content("a", version=1),
            content("a", metadata={"k": 1}),
            content("b"),
        ],
    )
    def test_another_field_is_another_content(self, other: Record) -> None:
        before = telemetry.DUPLICATES._value.get()
        stream = Stream(skipping())
        stream.send(content("a"))
        stream.send(other)
        assert stream.tagged == 2
        assert telemetry.DUPLICATES._value.get() == before

    def test_every_field_is_compared(self) -> None:
        """A field that the contract gains must not be forgotten here."""
        fields = {
            "title": "A title",
            "text": "Another text.",
            "language": "en",
            "time": datetime(2026, 1, 31, tzinfo=UTC),
            "version": 1,
            "metadata": {"k": 1},
            "scopes": ("one",),
        }
        plain = Content(id="a", text="Some text.")
        for name in Content.model_fields.keys() - {"id"}:
            assert fingerprint(plain.model_copy(update={name: fields[name]})) != fingerprint(plain), name

    @pytest.mark.parametrize("revision", ["two", None])
    def test_another_or_an_unknown_revision_tags_again(self, revision: str | None) -> None:
        tagger = Revised()
        stream = Stream(skipping(), tagger)
        stream.send(content("a"))
        tagger.now = revision
        stream.send(content("a"))
        assert stream.tagged == 2

    def test_a_result_of_a_revision_that_is_not_known_is_no_answer(self) -> None:
        tagger = Revised()
        tagger.now = None
        stream = Stream(skipping(), tagger)
        stream.send(content("a"))
        stream.send(content("a"))
        assert stream.tagged == 2

    def test_a_result_that_was_made_while_the_revision_changed_is_no_answer_even_after_it_changes_back(self) -> None:
        tagger = Revised()
        tagger.while_tagging = "two"
        stream = Stream(skipping(), tagger)
        stream.send(content("a"))
        tagger.now, tagger.while_tagging = "one", None
        stream.send(content("a"))
        stream.send(content("a"))
        assert stream.tagged == 2

    @pytest.mark.parametrize("header", ["tagbus.retag", "tagbus.replay.source"])
    def test_what_a_person_sends_through_again_is_tagged_again(self, header: str) -> None:
        before = telemetry.DUPLICATES._value.get()
        stream = Stream(skipping())
        stream.send(content("a"))
        again = content("a")
        (outcome,) = stream.send(Record(again.key, again.value, ((header, b"tag t1"),)))
        assert (outcome.kind, stream.tagged) == ("tagged", 2)
        assert telemetry.DUPLICATES._value.get() == before

    def test_an_uncommitted_result_makes_no_duplicate(self) -> None:
        stream = Stream(skipping())
        stream.send(content("a"), commit=False)
        stream.send(content("a"))
        assert stream.tagged == 2

    def test_the_last_content_of_an_id_counts_also_while_it_is_in_flight(self) -> None:
        stream = Stream(skipping())
        stream.send(content("a"))
        stream.send(content("a", "Another text."), commit=False)
        (outcome,) = stream.send(content("a"))
        assert outcome.kind == "tagged"

    def test_an_answer_of_an_earlier_assignment_does_not_count(self) -> None:
        stream = Stream(skipping())
        stream.send(content("a"), epoch=1)
        (outcome,) = stream.send(content("a"), epoch=2)
        assert outcome.kind == "tagged"

    def test_a_withdrawal_forgets_the_answer(self) -> None:
        stream = Stream(skipping())
        stream.send(content("a"))
        stream.send(Record(b"a", None))
        assert [outcome.kind for outcome in stream.send(content("a"))] == ["tagged"]

    def test_a_withdrawal_forgets_the_answer_that_is_in_flight(self) -> None:
        stream = Stream(skipping())
        stream.send(content("a"), Record(b"a", None))
        assert [outcome.kind for outcome in stream.send(content("a"))] == ["tagged"]

    def test_a_result_that_is_degraded_is_no_answer(self) -> None:
        class Skipping(Trivial):
            async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[TaggedContent | Failure]:
                self.seen.append([content.id for content in contents])
                skipped = (Degraded(stage="rank", reason="dependency_down"),)
                return [tagged(content).model_copy(update={"degraded": skipped}) for content in contents]

        stream = Stream(skipping(), Skipping())
        stream.send(content("a"))
        stream.send(content("a"))
        assert stream.tagged == 2

    def test_a_content_that_was_set_aside_is_tried_again(self) -> None:
        stream = Stream(skipping(), Picky(lambda content: content.id == "a"))
        outcomes = [*stream.send(content("a")), *stream.send(content("a"))]
        assert [outcome.kind for outcome in outcomes] == ["dead_lettered", "dead_lettered"]


def test_an_outcome_carries_the_time_of_its_event() -> None:
    outcomes = Stream().send(content("a", time="1970-01-01T01:00:05+01:00"), content("b"), Record(b"c", None))
    assert [outcome.event_time for outcome in outcomes] == [5.0, 1_700_000_000.0, 1_700_000_000.0]


def test_too_much_poison_is_raised_after_the_commit() -> None:
    settings = Settings.model_validate({"triage": {"poison_window": 10, "poison_share": 0.2}})
    stream = Stream(settings)
    stream.send(*[content(f"c{i}") for i in range(8)], Record(None, b"?"), Record(None, b"?"))
    with pytest.raises(TooMuchPoison):
        stream.send(Record(None, b"?"))
