"""The changes of a file to a taxonomy, and oddities in its hierarchy."""

from collections.abc import Sequence

import pytest

from tagbus.stream.contract.events import Tag
from tagbus.stream.vocabulary.comparison import ORDER, Comparison, Counts
from tagbus.stream.vocabulary.entry import Deprecated, Entry, Read, Wrong
from tagbus.stream.vocabulary.hierarchy import oddities


def tag(tag_id: str, name: str = "name", parents: str = "", aliases: str = "") -> Tag:
    return Tag(id=tag_id, name=name, parents=tuple(parents), aliases=tuple(aliases))


def replaced(tag_id: str, *successors: str) -> Tag:
    return Tag(id=tag_id, name="name", replaced_by=successors)


def compared(before: Sequence[Tag], after: Sequence[Tag | Read], *, keep: bool = False) -> Comparison:
    """Two taxonomies without faults."""
    wrong = list[Wrong]()
    found = Comparison(keep=keep)
    found.load_before((one.id, one, "place") for one in before)
    reads = (Entry(f"file:{number}", one) if isinstance(one, Tag) else one for number, one in enumerate(after, 1))
    found.load_after(reads, wrong.append)
    assert wrong == []
    return found


def changes(comparison: Comparison) -> dict[str, list[str]]:
    return {kind: [change.id for change in comparison.changes(kind)] for kind in ORDER}


BEFORE = [tag("a"), tag("b"), tag("c"), tag("d")]


class TestChanges:
    def test_added_changed_retired_and_the_others(self) -> None:
        with compared(BEFORE, [tag("a"), tag("b", "new"), tag("e")]) as found:
            assert changes(found) == {"added": ["e"], "changed": ["b"], "replaced": [], "retired": ["c", "d"]}
            assert found.counts() == Counts(added=1, changed=1, replaced=0, retired=2, unchanged=1, before=4)
            assert str(found.counts()) == "1 added, 1 changed, 2 retired, 1 unchanged"
            (change,) = found.changes("changed")
            assert (change.before, change.after) == (tag("b"), tag("b", "new"))

    def test_what_the_file_does_not_name_may_stay_but_what_it_deprecates_goes(self) -> None:
        with compared(BEFORE, [tag("a"), Deprecated("file:2", "b")], keep=True) as found:
            assert changes(found) == {"added": [], "changed": [], "replaced": [], "retired": ["b"]}

    def test_a_missing_deprecated_tag_is_no_change(self) -> None:
        with compared([], [Deprecated("file:1", "b")]) as found:
            assert found.counts().total == 0

    def test_one_that_others_replace_counts_as_leaving_if_it_was_in_force(self) -> None:
        after = [tag("a"), replaced("b", "a"), tag("c"), tag("d"), replaced("old", "a")]
        with compared(BEFORE, after) as found:
            assert changes(found) == {"added": [], "changed": [], "replaced": ["b", "old"], "retired": []}
            assert found.counts().leaving == 1
            assert str(found.counts()) == "0 added, 0 changed, 2 replaced, 0 retired, 3 unchanged"

    def test_one_that_others_replaced_before_stays_where_the_file_does_not_name_it(self) -> None:
        with compared([*BEFORE, replaced("old", "a")], BEFORE) as found:
            assert found.counts() == Counts(added=0, changed=0, replaced=0, retired=0, unchanged=4, before=4)

    def test_one_that_others_replaced_comes_back_where_the_file_has_it_in_force(self) -> None:
        with compared([tag("a"), replaced("b", "a")], [tag("a"), tag("b")]) as found:
            assert found.counts() == Counts(added=0, changed=1, replaced=0, retired=0, unchanged=1, before=1)

    def test_the_order_of_lists_is_no_change(self) -> None:
        with compared([tag("a", aliases="xy", parents="pq")], [tag("a", aliases="yx", parents="qp")]) as found:
            assert found.counts().unchanged == 1

    def test_of_a_key_the_last_record_counts(self) -> None:
        with Comparison() as found:
            found.load_before([("a", tag("a"), ""), ("b", tag("b"), ""), ("a", None, ""), ("b", tag("b", "new"), "p")])
            assert list(found.before()) == [(tag("b", "new"), "p")]

    def test_the_same_line_twice_is_one_tag_and_two_that_differ_are_wrong(self) -> None:
        wrong = list[Wrong]()
        with Comparison() as found:
            reads = [Entry(f"file:{at}", tag(*one)) for at, one in enumerate([("a",), ("a",), ("b",), ("b", "new")], 1)]
            found.load_after(reads, wrong.append)
            assert [str(one) for one in wrong] == ["file:4: id: 'b' is at file:3 as well, and not the same"]
            assert [one.id for one in found.after()] == ["a", "b"]


class TestOddities:
    @pytest.mark.parametrize(
        ("after", "lines"),
        [
            ([tag("a"), tag("b", parents="a")], []),
            ([tag("a", parents="a")], ["tags that are broader than themselves: 1 ('a')"]),
            (
                [tag("a", parents="c"), tag("b", parents="a"), tag("c", parents="b"), tag("d", parents="a")],
                ["3 tags are broader than each other in a cycle: 'a', 'b', 'c'"],
            ),
            (
                [tag("a", parents="zy")],
                ["tags with a broader tag that is neither in the file nor kept on the topic: 1 ('a')"],
            ),
        ],
        ids=["none", "self", "cycle", "missing"],
    )
    def test_they_are_said(self, after: list[Tag], lines: list[str]) -> None:
        with compared(BEFORE, after) as found:
            assert list(oddities(found)) == lines

    def test_a_broader_tag_that_the_import_itself_retires_is_missing(self) -> None:
        before, after = [tag("p"), tag("q"), replaced("r", "p")], [tag(child, parents=child.lower()) for child in "PQR"]
        with compared(before, after) as found:
            (line,) = oddities(found)
            assert line.endswith(": 2 ('P', 'Q')")
        with compared(before, [*after, Deprecated("file:9", "q")], keep=True) as found:
            (line,) = oddities(found)
            assert line.endswith(": 1 ('Q')")
        with compared(before, after, keep=True) as found:
            assert list(oddities(found)) == []

    def test_a_long_chain_is_none(self) -> None:
        after = [
            Tag(id=str(number), name="x", parents=(str(number - 1),) if number else ()) for number in range(20_000)
        ]
        with compared([], after) as found:
            assert list(oddities(found)) == []
