"""A corpus compared with the existing exemplars."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.contract.fields import LIST_ITEMS, Source
from tagbus.stream.vocabulary.corpus import Known
from tagbus.stream.vocabulary.entry import Remarks, Wrong
from tagbus.stream.vocabulary.exemplars import Corpus, Counts
from tests.contract.strategies import SOME_TIME

TAGS = [Tag(id="a", name="ants", names={"fi": "muurahaiset"}), Tag(id="b", name="bees"), Tag(id="c", name="bees")]


def known(content: str, *accepted: str, labels: Sequence[str] = (), text: str = "x") -> Known:
    return Known(f"file:{content}", Exemplar(id=content, text=text, accepted=accepted), tuple(labels))


def read(corpus: Corpus, *contents: Known) -> tuple[list[Wrong], list[str]]:
    wrong, remarks = list[Wrong](), Remarks()
    corpus.load_tags(TAGS)
    corpus.load_after(iter(contents), wrong.append, remarks)
    return wrong, list(remarks.lines())


def test_only_new_or_changed_decisions_are_published() -> None:
    same = Exemplar(id="1", text="x", accepted=("b", "a"), time=SOME_TIME)
    with Corpus("people") as corpus:
        assert read(corpus, known("1", "a", "b"), known("2", "a"), known("3", "a")) == ([], [])
        corpus.load_before([(same.key, same), ("2/people", Exemplar(id="2", text="x")), ("3/people", None)])
        assert corpus.counts() == Counts(added=1, changed=1, unchanged=1)
        assert str(corpus.counts()) == "1 added, 1 changed, 1 unchanged"
        assert [one.id for one in corpus.changes()] == ["2", "3"]


def test_a_decision_without_a_text_is_a_change_only_where_its_tags_differ() -> None:
    """The joiner keeps the text and the scopes that it has, so the same table again publishes nothing."""
    there = [Exemplar(id=name, text="x", accepted=("a", "b"), scopes=("s",)) for name in "12"]
    with Corpus("people") as corpus:
        assert read(corpus, known("1", "b", "a", text=""), known("2", "a", text=""), known("3", "a", text="")) == (
            [],
            [],
        )
        corpus.load_before([(one.key, one) for one in there])
        assert [one.id for one in corpus.changes()] == ["2", "3"]
        assert corpus.counts() == Counts(added=1, changed=1, unchanged=1)
    with Corpus("machine") as corpus:
        read(corpus, known("1", "a", "b", text=""))
        old = there[0].model_copy(update={"source": "machine"})
        corpus.load_before([(old.key, old)])
        assert corpus.counts() == Counts(added=0, changed=1, unchanged=0)


def test_the_source_is_said() -> None:
    with Corpus("machine") as corpus:
        read(corpus, known("1", "a"))
        assert [one.key for one in corpus.changes()] == ["1/machine"]


@pytest.mark.parametrize(("source", "other"), [("people", "machine"), ("machine", "people")])
def test_another_source_than_the_corpus_s_is_wrong(source: Source, other: Source) -> None:
    """The machine's exemplars, as synthesize writes them, would otherwise become decisions of people."""
    line = Known("file:1", Exemplar(id="1", text="x", accepted=("a",), source=other))
    with Corpus(source) as corpus:
        (wrong,), _ = read(corpus, line)
        assert str(wrong) == f"file:1: source: '{other}' is wrong, expected '{source}', as --source says"


class TestScopes:
    """Existing exemplars that an import would show to other contents."""

    @staticmethod
    def risks(old: Exemplar, new: Exemplar) -> list[str]:
        with Corpus(new.source) as corpus:
            read(corpus, Known("file:1", new))
            corpus.load_before([(old.key, old)])
            return list(map(str, corpus.risks()))

    @pytest.mark.parametrize("scopes", [(), ("y",), ("x", "y")])
    @pytest.mark.parametrize("source", ["people", "machine"])
    def test_other_contents_would_see_the_text(self, source: Source, scopes: tuple[str, ...]) -> None:
        old = Exemplar(id="1", text="x", accepted=("a",), scopes=("x",), source=source)
        new = Exemplar(id="1", text="x", accepted=("a",), scopes=scopes, source=source)
        assert self.risks(old, new) == ["show 1 exemplar to contents that do not see them now ('1')"]

    def test_fewer_scopes_and_the_same_show_it_to_nobody_else(self) -> None:
        old = Exemplar(id="1", text="x", accepted=("a",), scopes=("x", "y"))
        assert self.risks(old, old.model_copy(update={"scopes": ("y",), "accepted": ("b",)})) == []
        assert self.risks(old, old.model_copy(update={"scopes": ("y", "x")})) == []
        assert self.risks(old.model_copy(update={"scopes": ()}), old) == []

    def test_a_decision_without_a_text_leaves_text_and_scopes_as_they_are(self) -> None:
        old = Exemplar(id="1", text="x", accepted=("a",), scopes=("x",))
        assert self.risks(old, Exemplar(id="1", accepted=("b",))) == []
        machine = old.model_copy(update={"source": "machine"})
        assert len(self.risks(machine, Exemplar(id="1", accepted=("b",), source="machine"))) == 1


def test_labels_mean_the_tags_that_alone_have_them() -> None:
    with Corpus("people") as corpus:
        read(corpus, known("1", labels=["ants"]), known("2", "b", labels=["muurahaiset", "bees", "wasps"]))
        assert [one.accepted for one in corpus.changes()] == [("a",), ("b", "a")]
        assert str(corpus.unknown) == "tags that are not in force: 2, by their uses: 'bees' (1), 'wasps' (1)"


def test_a_label_is_the_same_in_each_unicode_form() -> None:
    """Decomposed letters, as in files from macOS, look the same as composed ones."""
    with Corpus("people") as corpus:
        corpus.load_tags([Tag(id="a", name="Caf\u00e9"), Tag(id="b", name="Gro\u0308\u00dfe")])
        contents = [known("1", labels=["Cafe\u0301"]), known("2", labels=["Gr\u00f6\u00dfe"])]
        corpus.load_after(iter(contents), lambda _: None, Remarks())
        assert [one.accepted for one in corpus.changes()] == [("a",), ("b",)]


def test_unknown_ids_are_counted_and_kept() -> None:
    with Corpus("people") as corpus:
        read(corpus, known("1", "z", "a"), known("2", "z"))
        assert [one.accepted for one in corpus.changes()] == [("z", "a"), ("z",)]
        assert str(corpus.unknown) == "tags that are not in force: 1, by their uses: 'z' (2)"


def test_a_content_without_a_tag_is_left_out_and_that_is_said() -> None:
    with Corpus("people") as corpus:
        assert read(corpus, known("1"), known("2", labels=["wasps"])) == (
            [],
            ["file:1: contents without a known tag are left out (and 1 more)"],
        )
        assert corpus.counts().total == 0


def test_the_tags_of_a_text_that_comes_again_are_joined() -> None:
    with Corpus("people") as corpus:
        assert read(corpus, known("1", "a"), known("1", "b", "a")) == ([], [])
        assert [one.accepted for one in corpus.changes()] == [("a", "b")]


def test_an_id_with_another_text_is_wrong() -> None:
    with Corpus("people") as corpus:
        (wrong,), _ = read(corpus, known("1", "a"), known("1", "a", text="y"))
        assert str(wrong) == "file:1: id: '1' is at file:1 as well, with another text"


def row(line: int, **fields: object) -> Known:
    return Known(f"file:{line}", Exemplar.model_validate({"id": "1", "text": "x", **fields}))


@pytest.mark.parametrize("scopes", [(), ("t2",), ("t1", "t2")])
def test_rows_of_one_content_with_other_scopes_are_wrong(scopes: tuple[str, ...]) -> None:
    with Corpus("people") as corpus:
        first, second = row(2, accepted=("a",), scopes=("t1",)), row(3, accepted=("b",), scopes=scopes)
        (wrong,), _ = read(corpus, first, second)
        assert str(wrong) == "file:3: scopes: '1' is at file:2 as well, with other scopes"
        # The first row stays as it is.
        assert [one.scopes for one in corpus.changes()] == [("t1",)]


def test_the_order_of_scopes_says_nothing() -> None:
    with Corpus("people") as corpus:
        assert read(corpus, row(2, accepted=("a",), scopes=("x", "y")), row(3, rejected=("b",), scopes=("y", "x"))) == (
            [],
            [],
        )


@pytest.mark.parametrize("verdicts", [("accepted", "rejected"), ("rejected", "accepted")])
def test_a_tag_accepted_in_one_row_and_rejected_in_another_is_wrong(verdicts: tuple[str, str]) -> None:
    with Corpus("people") as corpus:
        (wrong,), _ = read(corpus, *(row(line, **{verdict: ("a",)}) for line, verdict in enumerate(verdicts, 2)))
        assert str(wrong) == (
            "file:3: rejected: '1' is at file:2 as well, with 'a' accepted in one row and rejected in the other"
        )


@pytest.mark.parametrize("source", ["people", "machine"])
def test_a_tag_accepted_and_rejected_in_one_row_is_wrong(source: Source) -> None:
    with Corpus(source) as corpus:
        (wrong,), _ = read(corpus, row(2, accepted=("b", "a"), rejected=("a",)))
        assert str(wrong) == "file:2: rejected: 'a' is wrong, expected no tag that is accepted too"
        assert list(corpus.changes()) == []


def test_the_newest_time_of_a_content_counts() -> None:
    older = SOME_TIME - timedelta(days=1)
    with Corpus("people") as corpus:
        read(
            corpus,
            row(2, accepted=("a",), time=SOME_TIME),
            row(3, accepted=("b",), time=older),
            row(4, accepted=("c",)),
        )
        assert [one.time for one in corpus.changes()] == [SOME_TIME]


@pytest.mark.parametrize("verdict", ["accepted", "rejected"])
def test_more_tags_in_all_rows_than_a_list_may_have_are_wrong(verdict: str) -> None:
    with Corpus("people") as corpus:
        tags = tuple(f"t{number}" for number in range(LIST_ITEMS + 1))
        (wrong,), _ = read(corpus, row(2, **{verdict: tags[:-1]}), row(3, **{verdict: tags[-1:]}))
        assert str(wrong) == f"file:3: {verdict}: {LIST_ITEMS + 1} tags is wrong, expected at most {LIST_ITEMS}"
