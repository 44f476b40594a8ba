"""What an import does only by force: tags that more contents see or that come back, successors that lead nowhere."""

from collections.abc import Sequence

import pytest

from tagbus.stream.contract.events import Tag
from tagbus.stream.vocabulary.comparison import Comparison
from tagbus.stream.vocabulary.entry import Entry
from tagbus.stream.vocabulary.risks import risks


def found(before: Sequence[Tag], after: Sequence[Tag], *, keep: bool = True) -> list[str]:
    with Comparison(keep=keep) as comparison:
        comparison.load_after((Entry(f"file:{line}", tag) for line, tag in enumerate(after, 1)), lambda _: None)
        comparison.load_before((tag.id, tag, "tags:0") for tag in before)
        return [str(risk) for risk in risks(comparison)]


def scoped(*scopes: str, tag: str = "a", name: str = "a") -> Tag:
    return Tag(id=tag, name=name, scopes=scopes)


def gone(tag: str, *successors: str) -> Tag:
    return Tag(id=tag, name=tag, replaced_by=successors)


class TestScopes:
    @pytest.mark.parametrize("after", [(), ("t2",), ("t1", "t2")])
    def test_a_tag_that_other_contents_would_see_is_a_risk(self, after: tuple[str, ...]) -> None:
        assert found([scoped("t1")], [scoped(*after)]) == ["show 1 tag to contents that do not see them now ('a')"]

    @pytest.mark.parametrize(
        ("before", "after"),
        [(("t1", "t2"), ("t1",)), (("t1", "t2"), ("t2", "t1")), ((), ("t1",)), ((), ())],
    )
    def test_one_that_fewer_or_the_same_see_is_none(self, before: tuple[str, ...], after: tuple[str, ...]) -> None:
        assert found([scoped(*before)], [scoped(*after, name="new")]) == []

    def test_a_new_one_is_none(self) -> None:
        assert found([], [scoped("t1")]) == []

    def test_the_first_are_listed(self) -> None:
        tags = [scoped("t1", tag=f"{number:02}") for number in range(11)]
        (line,) = found(tags, [tag.model_copy(update={"scopes": ()}) for tag in tags])
        assert line.startswith("show 11 tags to contents that do not see them now ('00', '01', ")
        assert line.endswith("'09', …)")


class TestSuccessors:
    B = Tag(id="b", name="b")
    NOWHERE = "replace 1 tag by tags that are neither in the file nor kept on the topic ('a')"

    def test_one_that_is_missing_is_a_risk(self) -> None:
        assert found([], [gone("a", "b")]) == [self.NOWHERE]
        assert found([], [self.B, gone("a", "b", "none")]) == [self.NOWHERE]

    def test_one_that_the_import_retires_is_missing(self) -> None:
        assert found([self.B], [gone("a", "b")]) == []
        assert found([self.B], [gone("a", "b")], keep=False) == [self.NOWHERE]
        assert found([self.B, gone("a", "b")], [gone("a", "b")], keep=False) == [self.NOWHERE]

    def test_a_chain_that_ends_at_a_tag_in_force_is_none(self) -> None:
        chain = [gone("a", "c"), gone("c", "d")]
        assert found([], [*chain, Tag(id="d", name="d")]) == []
        assert found([chain[1], Tag(id="d", name="d")], [chain[0]]) == []

    @pytest.mark.parametrize("on_topic", [0, 1])
    def test_a_circle_is_one_also_with_tags_of_the_topic(self, on_topic: int) -> None:
        circle = [gone("b", "a"), gone("a", "b")]
        (line,) = found(circle[:on_topic], circle[on_topic:])
        assert line == ("replace 1 tag in a circle ('a')" if on_topic else "replace 2 tags in a circle ('a', 'b')")

    def test_one_that_comes_back_is_a_risk(self) -> None:
        """A file that does not know of a merge, such as the vocabulary's next edition, would undo it."""
        assert found([gone("a", "b"), self.B], [Tag(id="a", name="a"), self.B]) == [
            "bring back 1 tag that others replace now ('a')"
        ]
        assert found([gone("a", "b"), self.B], [gone("a", "b").model_copy(update={"name": "new"}), self.B]) == []
        assert found([gone("a", "b"), self.B], [self.B]) == []

    def test_what_the_topic_has_already_and_stays_is_none(self) -> None:
        tags = [gone("a", "none"), gone("b", "c"), gone("c", "b")]
        assert found(tags, tags) == []
