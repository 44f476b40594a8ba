"""The row of a tag: equal to a recount under any repeats, and bounded."""

import random
from collections import Counter, defaultdict

import pytest

from tagbus.stream.config import ViewsSettings
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
    is_forgotten,
    with_version,
)
from tagbus.stream.views.tags import Limits, TagRow, apply, trim

LIMITS = Limits(contents=3, together=2, step=3600, kept=10 * 3600)
WIDE = Limits(contents=1000, together=1000, step=3600, kept=1000 * 3600)
HOUR = 3_600_000


def change(
    offset: int, content: str, before: ContentEntry | None, after: ContentEntry | None, partition: int = 0
) -> Change:
    return Change(partition=partition, offset=offset, content=content, name="N", before=before, after=after)


def entry(confidence: float = 0.5, hours: int = 0, together: tuple[str, ...] = ()) -> ContentEntry:
    return ContentEntry(confidence=confidence, time=hours * HOUR, together=together)


def test_a_change_that_comes_again_does_nothing() -> None:
    row = TagRow()
    first, second = change(3, "a", None, entry()), change(5, "b", None, entry())
    assert apply(row, first, WIDE)
    assert apply(row, second, WIDE)
    stored = row.to_json()
    assert not apply(row, first, WIDE)
    assert not apply(row, second, WIDE)
    assert row.to_json() == stored
    assert row.count == 2


def test_each_partition_has_offsets_of_its_own() -> None:
    row = TagRow()
    assert apply(row, change(9, "a", None, entry(), partition=0), WIDE)
    assert apply(row, change(2, "b", None, entry(), partition=1), WIDE)
    assert row.count == 2


def test_counts_by_step_follow_the_contents_time() -> None:
    row = TagRow()
    apply(row, change(1, "a", None, entry(hours=5)), WIDE)
    apply(row, change(2, "b", None, entry(hours=5)), WIDE)
    apply(row, change(3, "a", entry(hours=5), entry(hours=7)), WIDE)
    assert row.steps == {5 * 3600: 1, 7 * 3600: 1}
    apply(row, change(4, "b", entry(hours=5), None), WIDE)
    trim(row, WIDE)
    assert row.steps == {7 * 3600: 1}


def test_steps_that_are_too_old_go() -> None:
    row = TagRow()
    apply(row, change(1, "a", None, entry(hours=1)), LIMITS)
    apply(row, change(2, "b", None, entry(hours=20)), LIMITS)
    trim(row, LIMITS)
    assert row.steps == {20 * 3600: 1}
    apply(row, change(3, "a", entry(hours=1), None), LIMITS)
    trim(row, LIMITS)
    assert row.steps == {20 * 3600: 1}
    assert row.count == 1


def test_the_newest_and_the_most_confident_contents_stay() -> None:
    row = TagRow()
    for number in range(20):
        apply(row, change(number, f"c{number:02}", None, entry(confidence=1 - number / 100, hours=number)), LIMITS)
        trim(row, LIMITS)
    assert row.newest(3) == ["c19", "c18", "c17"]
    assert row.surest(3) == ["c00", "c01", "c02"]
    assert len(row.contents) <= 6
    assert not row.contents_whole
    assert row.count == 20


def test_the_most_frequent_other_tags_stay_and_it_says_that_some_went() -> None:
    row = TagRow()
    for number, others in enumerate((("x", "y"), ("x", "y"), ("x", "z"))):
        apply(row, change(number, f"c{number}", None, entry(together=others)), LIMITS)
    trim(row, LIMITS)
    assert row.together == {"x": 3, "y": 2}
    assert not row.together_whole
    apply(row, change(3, "c2", entry(together=("x", "z")), None), LIMITS)
    assert row.together == {"x": 2, "y": 2}


@pytest.mark.parametrize("seed", range(8))
def test_rows_equal_a_recount_after_any_deaths_and_repeats(seed: int) -> None:
    """Batches of records are read. In some the worker dies after writing any subset of the rows and messages to tags.
    In others it dies before it commits. Then they are read again, in different batches."""
    chance = random.Random(seed)  # noqa: S311 - not a secret
    log = [(f"c{chance.randrange(8)}", latest(chance)) for _ in range(300)]
    contents, tags = dict[str, ContentRow](), dict[str, TagRow]()
    committed, delivered = 0, NOWHERE
    while committed < len(log):
        end = min(len(log), committed + chance.randrange(1, 30))
        rows, told = dict[str, ContentRow](), defaultdict[str, list[Change]](list)
        for offset in range(committed, end):
            content, after = log[offset]
            row = rows.get(content) or contents.get(content, ContentRow())
            before = before_offset(row, offset)
            if before is not None:
                rows[content] = with_version(row, Version(offset=offset, latest=after), delivered)
                for tag, found in changes(content, 0, offset, before.latest, after):
                    told[tag].append(found)
        dies = chance.random() < 0.3
        contents |= {one: row for one, row in rows.items() if not dies or chance.random() < 0.5}
        for tag, messages in told.items():
            if not dies or chance.random() < 0.5:
                for found in messages:
                    apply(tags.setdefault(tag, TagRow()), found, WIDE)
        if dies:
            delivered = NOWHERE
            continue
        delivered = end - 1
        contents = {one: row for one, row in contents.items() if one not in rows or not is_forgotten(row, delivered)}
        if chance.random() < 0.5:
            committed = end
        else:
            committed, delivered = chance.randrange(committed, end + 1), NOWHERE
    expected = {content: after for content, after in dict(log).items() if after is not None}
    assert {one: row.latest for one, row in contents.items()} == expected
    for tag, row in tags.items():
        carrying = {content for content, after in expected.items() if tag in {mark.id for mark in after.tags}}
        assert row.count == len(carrying)
        assert row.contents.keys() == carrying
        others = Counter(mark.id for one in carrying for mark in expected[one].tags if mark.id != tag)
        assert row.together == others


def latest(chance: random.Random) -> Latest | None:
    if chance.random() < 0.2:
        return None
    marks = tuple(Mark(id=f"t{n}", name="", confidence=chance.random()) for n in chance.sample(range(5), 2))
    return Latest(tags=marks, release="r", time=0, tagged=0)


def test_limits_are_those_of_the_settings() -> None:
    settings = ViewsSettings(contents=7, together=9, step_seconds=600, window_seconds=(1200,))
    assert Limits.of(settings) == Limits(contents=7, together=9, step=600, kept=2 * 1200 + 2 * 600)


def test_rows_are_stored_and_read_back() -> None:
    row = TagRow()
    apply(row, change(1, "a", None, entry(together=("x",))), WIDE)
    assert TagRow.model_validate_json(row.to_json()) == row
