"""The row of a content: its changes are the same however often a record is read."""

import json

import pytest

from tagbus.stream.contract.events import TaggedContent
from tagbus.stream.views.contents import (
    NOWHERE,
    Change,
    ContentEntry,
    ContentRow,
    Latest,
    Mark,
    Version,
    before_offset,
    changes,
    latest_of,
    with_version,
)
from tagbus.stream.views.records import CHANGES, sliced

DAY = 86_400_000


def latest(time: int = DAY, **tags: float) -> Latest:
    marks = tuple(Mark(id=one, name=one.upper(), confidence=sure) for one, sure in tags.items())
    return Latest(tags=marks, release="r1", time=time, tagged=time)


def told(row: ContentRow, offset: int, after: Latest | None) -> dict[str, Change]:
    before = before_offset(row, offset)
    assert before is not None
    return dict(changes("c", 0, offset, before.latest, after))


def result(time: str | None = None, **tags: float) -> TaggedContent:
    shown = [
        {"id": one, "name": one, "score": 1.0, "confidence": sure, "stage": "rank", "evidence": {}}
        for one, sure in tags.items()
    ]
    versions = {"release": "r1", "taxonomy": {}, "calibration": "none"}
    value = {"id": "c", "tags": shown, "versions": versions, "path": [], "time": time}
    return TaggedContent.model_validate_json(json.dumps(value))


def test_a_first_result_adds_each_of_its_tags() -> None:
    found = told(ContentRow(), 5, latest(a=0.9, b=0.4))
    assert found["a"].before is None
    assert found["a"].after == ContentEntry(confidence=0.9, time=DAY, together=("b",))
    assert found["b"].after == ContentEntry(confidence=0.4, time=DAY, together=("a",))


def test_a_retag_changes_replaced_tags_and_leaves_out_unchanged_ones() -> None:
    row = with_version(ContentRow(), Version(offset=5, latest=latest(a=0.9, b=0.4)), NOWHERE)
    found = told(row, 6, latest(a=0.9, b=0.4))
    assert found == {}
    found = told(row, 6, latest(a=0.9, c=0.3))
    assert found["b"].before is not None
    assert found["b"].after is None
    assert found["c"].before is None
    # Its confidence is the same, but it occurs together with others.
    assert found["a"].after == ContentEntry(confidence=0.9, time=DAY, together=("c",))


def test_a_withdrawal_takes_all() -> None:
    row = with_version(ContentRow(), Version(offset=5, latest=latest(a=0.9, b=0.4)), NOWHERE)
    assert {tag: change.after for tag, change in told(row, 6, None).items()} == {"a": None, "b": None}


def test_a_record_that_is_read_again_tells_the_same_although_the_row_is_ahead() -> None:
    first, second, third = latest(a=0.9), latest(b=0.8), latest(c=0.7)
    row, expected = ContentRow(), {}
    for offset, one in ((3, first), (4, second), (7, third)):
        expected[offset] = told(row, offset, one)
        row = with_version(row, Version(offset=offset, latest=one), NOWHERE)
    for offset, one in ((3, first), (4, second), (7, third)):
        assert told(row, offset, one) == expected[offset]
        assert with_version(row, Version(offset=offset, latest=one), NOWHERE) == row


def test_versions_whose_changes_are_delivered_go_but_for_the_last() -> None:
    row = ContentRow()
    for offset in (3, 4, 7):
        row = with_version(row, Version(offset=offset, latest=latest(a=offset / 10)), NOWHERE)
    row = with_version(row, Version(offset=9, latest=None), delivered=5)
    assert [one.offset for one in row.versions] == [4, 7, 9]
    assert before_offset(row, 4) is None
    assert before_offset(row, 3) is None
    replaced = before_offset(row, 7)
    assert replaced is not None
    assert replaced.offset == 4


def test_a_content_without_a_time_keeps_that_of_its_first_result() -> None:
    first = latest_of(result(a=0.5), 3 * DAY, None, 0)
    assert first.time == 3 * DAY
    assert latest_of(result(a=0.5), 9 * DAY, first, 0).time == 3 * DAY
    assert latest_of(result("1970-01-02T00:00:00Z", a=0.5), 9 * DAY, first, 0).time == DAY


def test_no_content_is_newer_than_its_result() -> None:
    assert latest_of(result("2999-01-01T00:00:00Z", a=0.5), 3 * DAY, None, 0).time == 3 * DAY
    assert latest_of(result("1960-01-01T00:00:00Z", a=0.5), 3 * DAY, None, 0).time == 0


def test_tags_below_the_least_confidence_do_not_enter() -> None:
    assert [one.id for one in latest_of(result(a=0.5, b=0.2), DAY, None, 0.3).tags] == ["a"]


def test_rows_are_stored_and_read_back() -> None:
    row = with_version(ContentRow(), Version(offset=5, latest=latest(a=0.9)), NOWHERE)
    assert ContentRow.model_validate_json(row.to_json()) == row


@pytest.mark.parametrize("size", [1, 2_000, 10_000_000])
def test_changes_of_a_tag_go_in_records_that_the_topic_takes(size: int) -> None:
    """A batch of contents that share a tag changes it as many times, in one record if that is small enough."""
    given = [told(ContentRow(), offset, latest(a=0.5, b=0.25))["a"] for offset in range(20)]
    values = list(sliced(given, size))
    found = [CHANGES.validate_json(value) for value in values]
    assert [one for some in found for one in some] == given
    assert all(len(value) <= size or len(some) == 1 for value, some in zip(values, found, strict=True))
    assert len(values) == {1: 20, 2_000: len(values), 10_000_000: 1}[size]
