"""The joiner's outcome for each record, independent of starts, rebalances and repeated batches."""

import asyncio
import json
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.stream.bus.process.decisions import PartitionDecisions
from tagbus.stream.bus.process.join_processor import JoinProcessor
from tagbus.stream.bus.processor import Batch, RecordOutcome, Source
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record, encode_record, read_dead_letter
from tagbus.stream.contract.decision import Decision
from tagbus.stream.errors import InvalidEvent
from tests.feedback.parts import decision, undo

PLACE = ("feedback", 3)
State = dict[bytes | None, bytes | None]


class Joiner:
    """A joiner that owns one partition, and its results as a compacted topic keeps them."""

    def __init__(self, given: Settings | None = None, state: Mapping[bytes | None, bytes | None] | None = None) -> None:
        self.processor = JoinProcessor(given or Settings())
        known = PartitionDecisions(ready=True)
        for key, value in (state or {}).items():
            known.learn(key or b"", value)
        self.processor._states.partitions = {PLACE: known}
        self.state: State = dict(state or {})
        self.exemplars: State = {}
        self.offset = 0
        self.epoch = 1

    def batch(self, *records: Record) -> Batch:
        sources = tuple(Source(*PLACE, self.offset + n, record, 1.0) for n, record in enumerate(records))
        self.offset += len(records)
        return Batch(PLACE, self.epoch, sources, 1, 0.0)

    def process(self, batch: Batch) -> list[RecordOutcome]:
        return asyncio.run(self.processor.process(batch, lambda _: None))

    def commit(self, batch: Batch, outcomes: Sequence[RecordOutcome]) -> None:
        self.processor.published(batch, outcomes)
        for outcome in outcomes:
            for out in outcome.outgoing:
                topic = {"feedback.state": self.state, "exemplars": self.exemplars}.get(out.topic)
                if topic is not None:
                    topic[out.key] = out.value

    def send(self, *decisions: Decision | Record) -> list[RecordOutcome]:
        batch = self.batch(*(one if isinstance(one, Record) else encode_record(one) for one in decisions))
        outcomes = self.process(batch)
        self.commit(batch, outcomes)
        return outcomes


def kinds(outcomes: Sequence[RecordOutcome]) -> list[str]:
    return [outcome.kind for outcome in outcomes]


def test_what_becomes_of_each_decision() -> None:
    joiner = Joiner()
    one = decision(1, accepted=("t1",))
    outcomes = joiner.send(
        one,
        one,
        decision(2, unsure=("t9",)),
        decision(3, id="b", title="", accepted=("t1",)),
        Record(b"a", b"{"),
        undo(4, 1),
        Record(b"a", None),
    )
    assert kinds(outcomes) == [
        *("joined", "duplicate", "unchanged", "waiting", "dead_lettered", "joined", "withdrawn"),
    ]
    topics = [[out.topic for out in outcome.outgoing] for outcome in outcomes]
    both = ["feedback.state", "exemplars"]
    assert topics == [both, [], ["feedback.state"], ["feedback.state"], ["feedback.dlq"], both, both]
    assert joiner.exemplars == {b"a/people": None}
    assert {key: value is None for key, value in joiner.state.items()} == {b"a": True, b"b": False}
    assert joiner.processor.waiting() == 1


def test_the_state_lies_in_the_partition_of_the_decision_and_names_it() -> None:
    (outcome,) = Joiner().send(decision(1, accepted=("t1",)))
    state, exemplar = outcome.outgoing
    assert (state.key, state.partition, exemplar.key, exemplar.partition) == (b"a", 3, b"a/people", -1)
    expected = {"tagbus.source.topic": b"feedback", "tagbus.source.partition": b"3", "tagbus.source.offset": b"0"}
    assert dict(state.headers) == dict(exemplar.headers) == expected
    assert json.loads(exemplar.value or b"")["accepted"] == ["t1"]


def test_a_decision_that_cannot_be_read_is_set_aside_with_the_reason() -> None:
    joiner = Joiner()
    wrong = json.dumps({"id": "a", "decision": "d", "who": "w", "time": "noon", "mode": "review"}).encode()
    twice = decision(1).model_copy(update={"accepted": ("t1",), "rejected": ("t1",)})
    for record, field in ((Record(b"a", wrong), "time"), (encode_record(twice), "accepted")):
        (outcome,) = joiner.send(record)
        letter = read_dead_letter(outcome.outgoing[0].headers)
        assert (letter.topic, letter.stage, letter.exception) == ("feedback", "decode", "InvalidEvent")
        assert letter.message.startswith(f"{field}: ")


def test_too_many_decisions_on_one_content_are_set_aside() -> None:
    joiner = Joiner(Settings.model_validate({"batch": {"record_bytes": 10_000}}))
    outcomes = joiner.send(*(decision(n, f"p{n}", accepted=("t1",)) for n in range(200)))
    assert kinds(outcomes)[-1] == "dead_lettered"
    letter = read_dead_letter(outcomes[-1].outgoing[0].headers)
    assert letter.message.endswith("on one content is wrong, expected at most batch.record_bytes = 10000")


def test_a_text_that_comes_later_ends_the_wait() -> None:
    joiner = Joiner()
    assert kinds(joiner.send(decision(1, title="", accepted=("t1",)))) == ["waiting"]
    assert kinds(joiner.send(decision(2, "archive", "api"))) == ["joined"]
    assert joiner.processor.waiting() == 0


def test_decisions_of_before_a_withdrawal_are_forgotten() -> None:
    joiner = Joiner()
    joiner.send(
        decision(1, accepted=("t1",), text="Secret."), Record(b"a", None), decision(2, title="", accepted=("t2",))
    )
    assert all(b"Secret" not in (value or b"") for value in joiner.state.values())
    assert joiner.exemplars == {b"a/people": None}


def test_at_least_once_a_decision_that_comes_again_has_its_exemplar_again() -> None:
    """The worker may have died between the two records of it."""
    joiner = Joiner(Settings.model_validate({"kafka": {"delivery": "at_least_once"}}))
    one = decision(1, accepted=("t1",))
    (first,), (second,) = joiner.send(one), joiner.send(one)
    assert (second.kind, second.outgoing[0].value) == ("duplicate", first.outgoing[1].value)


def test_a_record_that_kafka_refuses_is_set_aside_and_counts_for_nothing() -> None:
    joiner = Joiner()
    records = [encode_record(decision(n, f"p{n}", accepted=("t1",))) for n in range(2)]
    batch = joiner.batch(*records)
    joiner.process(batch)
    error = InvalidEvent("publish", ())
    again = Batch(PLACE, 2, batch.sources, 1, 0.0, {0: error})
    outcomes = joiner.process(again)
    assert kinds(outcomes) == ["dead_lettered", "joined"]
    joiner.commit(again, outcomes)
    assert joiner.state[b"a"] is not None
    assert b'"p0"' not in (joiner.state[b"a"] or b"")


def test_a_batch_of_an_assignment_that_has_ended_changes_nothing() -> None:
    joiner = Joiner()
    old = joiner.batch(encode_record(decision(1, accepted=("t1",))))
    joiner.epoch = 2
    joiner.send(decision(2, accepted=("t2",)))
    joiner.process(old)
    joiner.send(decision(3, accepted=("t3",)))
    assert json.loads(joiner.exemplars[b"a/people"] or b"")["accepted"] == ["t2", "t3"]


# Batch sizes in decisions, and the event after each: it is committed, or all uncommitted ones are processed again, or
# another process takes over.
STEPS = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from(["commit", "wait", "again", "crash"])), min_size=1, max_size=8
)


@given(STEPS, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_the_outcome_always_equals_that_of_the_log(steps: list[tuple[int, str]], random: "object") -> None:
    choose = random.choice  # type: ignore[attr-defined]
    log: list[Decision] = []
    joiner, waiting = Joiner(), list[tuple[Batch, list[RecordOutcome]]]()
    for count, then in steps:
        fresh = []
        for _ in range(count):
            number = len(log) + len(fresh)
            sides = {choose(["accepted", "rejected", "unsure"]): (choose(["t1", "t2"]),)}
            gone = (f"d{choose(range(number))}",) if number and choose([True, False]) else ()
            title = choose(["", "Bees", "Honey"])
            fresh.append(
                decision(number, choose(["ann", "bob"]), id=choose(["a", "b"]), title=title, supersedes=gone, **sides)
            )
        log += fresh
        batch = joiner.batch(*map(encode_record, fresh))
        waiting.append((batch, joiner.process(batch)))
        if then == "crash":
            joiner, before = Joiner(state=joiner.state), joiner
            joiner.offset, joiner.epoch, joiner.exemplars = before.offset, before.epoch + 1, before.exemplars
        if then in {"again", "crash"}:
            joiner.epoch += then == "again"
            batches = [Batch(PLACE, joiner.epoch, old.sources, 1, 0.0) for old, _ in waiting]
            waiting = [(one, joiner.process(one)) for one in batches]
        if then == "commit":
            for one, outcomes in waiting:
                joiner.commit(one, outcomes)
            waiting = []
    for one, outcomes in waiting:
        joiner.commit(one, outcomes)

    alone = Joiner()
    alone.send(*log)
    assert joiner.state == alone.state
    assert joiner.exemplars == alone.exemplars


@pytest.mark.parametrize("value", [b"no JSON", b"[]"])
def test_a_state_that_is_not_ours_ends_the_worker_and_names_the_content(value: bytes) -> None:
    joiner = Joiner(state={b"a": value})
    with pytest.raises(Exception, match=r"feedback.state"):
        joiner.send(decision(1, accepted=("t1",)))
