"""Any record gets one outcome, and a dead letter equals its record. `make fuzz` does the same for 100,000."""

from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.stream.bus.process.tag_processor import TagProcessor
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record
from tests.bus.fuzzing import complaints, processed
from tests.bus.mutants import Mutants
from tests.bus.taggers import Trivial

GIVEN = Settings.model_validate({"triage": {"poison_share": 1}})


@given(st.randoms(use_true_random=False), st.integers(1, 12))
@settings(max_examples=200)
def test_each_mutated_event_ends_once_and_a_dead_letter_is_byte_for_byte_what_came(random: Random, count: int) -> None:
    mutants = Mutants(random)
    records = [mutants.next() for _ in range(count)]
    outcomes = processed(TagProcessor(GIVEN, Trivial()), records, first=100)
    assert len(outcomes) == count
    for offset, (record, outcome) in enumerate(zip(records, outcomes, strict=True), 100):
        assert not complaints(GIVEN, record, offset, outcome)


def test_the_check_finds_what_has_changed() -> None:
    record = Record(b"k", b"no event")
    (outcome,) = processed(TagProcessor(GIVEN, Trivial()), [record], first=100)
    assert complaints(GIVEN, record, 100, outcome) == []
    assert "offset 100, not 101" in complaints(GIVEN, record, 101, outcome)[0]
    for other in (replace(record, value=b"no event."), replace(record, key=b"l"), replace(record, value=None)):
        assert complaints(GIVEN, other, 100, outcome) == ["its key or value has changed"]
    assert complaints(GIVEN, record, 100, replace(outcome, outgoing=())) == ["0 records go out for one"]
