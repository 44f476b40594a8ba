"""The topics by time: what is trained on, and what is compared on."""

from datetime import UTC, datetime, timedelta

import pytest

from tagbus.models.auto.recent import split
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.errors import UserError

SINCE = datetime(2026, 11, 14, tzinfo=UTC)
TAGS = [Tag(id="a", name="bees")]


def decided(number: int, days: float | None) -> Exemplar:
    """A content that was decided so many days after the time."""
    time = None if days is None else SINCE + timedelta(days=days)
    return Exemplar(id=f"c{number}", text="Bees", accepted=("a",), time=time)


ITEMS = [
    *(decided(number, None) for number in range(20)),
    *(decided(number, -1) for number in range(20, 100)),
    *(decided(number, 1 + number / 1000) for number in range(100, 200)),
]


def test_the_newest_third_of_what_is_newer_than_the_time_is_compared_on() -> None:
    corpus = split(TAGS, ITEMS[::-1], SINCE)
    compared = list(corpus.exemplars("test"))
    assert [item.id for item in compared] == [f"c{number}" for number in range(167, 200)]
    learnt = [*corpus.exemplars("train"), *corpus.exemplars("val")]
    assert {item.id for item in learnt} == {f"c{number}" for number in range(167)}
    assert max(item.time for item in learnt if item.time) < min(item.time for item in compared if item.time)
    assert corpus.tags() == TAGS


def test_a_content_stays_in_its_split() -> None:
    val = {item.id for item in split(TAGS, ITEMS, SINCE).exemplars("val")}
    assert 5 < len(val) < 35
    later = [*ITEMS, *(decided(number, 3) for number in range(200, 300))]
    assert val <= {item.id for item in split(TAGS, later, SINCE).exemplars("val")}


def test_too_few_to_compare_on_are_refused() -> None:
    with pytest.raises(UserError, match=r"--since: 80 contents were decided since 2026-11-14T00:00:00Z; expected at "):
        split(TAGS, ITEMS[:180], SINCE)
