"""The share of dead letters: when the worker ends, and what does not count."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, strategies

from tagbus.stream import telemetry
from tagbus.stream.bus.process.dead_letters import PoisonShare
from tagbus.stream.bus.processor import RecordOutcome
from tagbus.stream.config import TriageSettings
from tagbus.stream.errors import TooMuchPoison
from tests.bus.harness import Process, ending, event, exactly_once, running, settings, until_all_out
from tests.bus.taggers import Trivial
from tests.conftest import Broker
from tests.support import Layout, consume_all, produce

GOOD, BAD, UNDECODABLE = (
    RecordOutcome("tagged", ()),
    RecordOutcome("dead_lettered", (), "tag"),
    RecordOutcome("dead_lettered", (), "decode"),
)
SILENT = [RecordOutcome("dead_lettered", (), "order"), RecordOutcome("withdrawn", ()), RecordOutcome("duplicate", ())]


def share(window: int = 10, most: float = 0.2) -> PoisonShare:
    return PoisonShare(TriageSettings(poison_window=window, poison_share=most))


def test_nothing_is_said_before_the_window_is_full() -> None:
    counted = share()
    counted.count([BAD] * 9)
    with pytest.raises(TooMuchPoison):
        counted.count([BAD])


def test_the_share_itself_is_allowed_and_one_more_is_too_much() -> None:
    counted = share()
    counted.count([GOOD] * 8 + [BAD, UNDECODABLE])
    assert telemetry.POISON_SHARE._value.get() == 0.2
    with pytest.raises(TooMuchPoison, match=r"3 of the last 10 contents were set aside \(tag 2, decode 1\)"):
        counted.count([BAD])


def test_what_left_the_window_counts_no_more() -> None:
    counted = share()
    for _ in range(20):
        counted.count([BAD, BAD, *[GOOD] * 8])


def test_stale_withdrawn_and_duplicate_ones_do_not_count() -> None:
    counted = share()
    counted.count([GOOD] * 9 + SILENT * 100 + [BAD])
    assert telemetry.POISON_SHARE._value.get() == 0.1


def test_a_share_of_one_never_stops_a_worker() -> None:
    share(most=1.0).count([BAD] * 1000)


@given(strategies.lists(strategies.lists(strategies.booleans(), max_size=15), max_size=20))
def test_it_stops_at_the_first_batch_whose_end_has_too_many(batches: list[list[bool]]) -> None:
    counted, seen = share(), list[bool]()
    for batch in batches:
        seen += batch
        too_many = len(seen) >= 10 and sum(seen[-10:]) > 2
        outcomes = [BAD if bad else GOOD for bad in batch]
        if too_many:
            with pytest.raises(TooMuchPoison):
                counted.count(outcomes)
            return
        counted.count(outcomes)


@pytest.mark.kafka
def test_the_process_ends_with_code_10_and_loses_nothing(
    kafka: Broker, topics: Callable[[Mapping[str, Layout]], dict[str, str]], tmp_path: Path
) -> None:
    # Given contents of which every third cannot be decoded
    names = topics({"content": 1, "tagged": 1, "dead_letters": 1, "exemplars": 1, "feedback": 1, "versions": 1})
    produce(kafka.address, names["content"], [(None, b"?" if i % 3 == 0 else event(f"c{i}"), []) for i in range(300)])
    given = settings(kafka.address, names, batch={"contents": 20}, triage={"poison_window": 100})
    process = Process(given, tmp_path / "log")
    with ending([process]):
        assert process.ended() == 10
    # Every third: the end of the last batch depends on when its records arrived.
    assert re.search(r"\b(33|34) of the last 100 contents were set aside \(decode \1\)", process.text())
    # When it is started again with more patience
    letters = len(consume_all(kafka.address, names["dead_letters"]))
    assert letters >= 34
    patient = given.model_copy(update={"triage": TriageSettings(poison_share=1.0)})
    with running(patient, Trivial()):
        until_all_out(kafka.address, names, 300)
    # Then earlier dead letters are not repeated
    exactly_once(kafka.address, names)
