"""The mistakes that the page of `tagbus evaluate --errors` shows."""

import pytest

from tagbus.stream.app.mistakes import find
from tagbus.stream.contract.events import Tag
from tests.app.mistakes.toy import evaluated, tagged


def test_the_worst_contents_come_first_and_of_equal_ones_the_surest_mistake() -> None:
    contents = [
        tagged("right", "a,b", {"a": 0.9, "b": 0.8}),
        tagged("late", "a", {"x": 0.9, "a": 0.5}),
        tagged("unsure", "a", {"x": 0.2}),
        tagged("sure", "a", {"x": 0.8}),
        tagged("empty", "a", {}),
    ]
    assert [one.content.id for one in find.worst(evaluated(contents))] == ["sure", "unsure", "empty", "late"]
    assert [one.content.id for one in find.worst(evaluated(contents), 1)] == ["sure"]


def test_more_than_five_right_tags_in_the_first_five_places_are_no_mistake() -> None:
    assert find.worst(evaluated([tagged("c", "a,b,c,d,e,f", dict.fromkeys("fedcb", 0.5))])) == []


def test_a_confusion_is_a_wrong_tag_among_as_many_as_are_right_where_a_right_one_is_missing() -> None:
    contents = [
        tagged("1", "cat", {"dog": 0.9, "cat": 0.8}),
        tagged("2", "cat", {"dog": 0.9}),
        tagged("3", "cat", {"cat": 0.9, "dog": 0.8}),
        tagged("4", "cat", {"cow": 0.9}),
    ]
    (one,) = find.confusions(evaluated(contents))
    assert (one.missed, one.taken, one.times, one.of) == ("cat", "dog", 2, 4)
    assert [example.content.id for example in one.examples] == ["1", "2"]


def test_a_tag_that_is_frequent_anyway_comes_after_one_that_is_always_taken() -> None:
    rare = [tagged(f"r{number}", "rare", {"twin": 0.9}) for number in range(3)]
    common = [tagged(f"c{number}", "common", {"other": 0.9}) for number in range(4)]
    found = [tagged(f"f{number}", "common", {"common": 0.9}) for number in range(20)]
    rows = find.confusions(evaluated([*common, *rare, *found]))
    assert [(row.missed, row.taken) for row in rows] == [("rare", "twin"), ("common", "other")]


@pytest.mark.parametrize(
    ("parents", "relation"),
    [
        ({"cat": ("dog",)}, "broader"),
        ({"dog": ("cat",)}, "narrower"),
        ({"cat": ("pets",), "dog": ("pets",)}, "sibling"),
        ({}, ""),
    ],
)
def test_how_the_taxonomy_has_the_two_is_said(parents: dict[str, tuple[str, ...]], relation: str) -> None:
    tags = [Tag(id=name, name=name, parents=parents.get(name, ())) for name in ("cat", "dog")]
    contents = [tagged(str(number), "cat", {"dog": 0.9}) for number in range(2)]
    (one,) = find.confusions(evaluated(contents, tags=tags))
    assert one.relation == relation


def test_a_tag_that_no_content_with_it_gets_is_never_found() -> None:
    contents = [
        tagged("1", "a,b", {"a": 0.9}),
        tagged("2", "b", {"c": 0.9}),
        tagged("3", "c,d", {"b": 0.9}),
        tagged("4", "a", {}),
    ]
    many, rows = find.never_found(evaluated(contents))
    assert many == 3
    assert [(row.tag, row.contents, row.given) for row in rows] == [("b", 2, 1), ("c", 1, 1), ("d", 1, 0)]
    assert len(find.never_found(evaluated(contents), 1)[1]) == 1


def test_a_tag_of_which_it_is_sure_and_that_nobody_gave_may_have_been_missed() -> None:
    contents = [
        tagged("1", "a", {"a": 0.95, "b": 0.9, "c": 0.49}),
        tagged("2", "a", {"b": 0.7}),
        tagged("3", "b", {"b": 0.8}),
    ]
    gaps = find.gaps(evaluated(contents))
    assert [(gap.tagged.content.id, gap.tag.id) for gap in gaps.rows] == [("1", "b"), ("2", "b")]
    # Of a, b, b and b with at least 0.7 two are right.
    assert (gaps.least, gaps.pairs, gaps.annotated) == (0.7, 4, 0.5)


def test_a_tag_that_is_always_left_out_does_not_fill_the_list() -> None:
    contents = [tagged(f"n{number}", "a", {"b": 0.9}) for number in range(9)] + [tagged("z", "a", {"c": 0.6})]
    assert [gap.tag.id for gap in find.gaps(evaluated(contents)).rows] == ["b", "b", "b", "c"]


def test_a_tagger_that_is_sure_of_nothing_has_no_gaps() -> None:
    gaps = find.gaps(evaluated([tagged("1", "a", {"b": 0.3})]))
    assert (gaps.rows, gaps.pairs, gaps.annotated) == ([], 0, 0.0)


def test_the_page_looks_at_the_worst_contents_and_at_those_with_gaps_each_once() -> None:
    contents = [tagged("1", "a", {"b": 0.9}), tagged("2", "a", {"a": 0.9, "b": 0.8}), tagged("3", "a", {"a": 0.9})]
    assert [one.content.id for one in find.looked_at(evaluated(contents))] == ["1", "2"]
