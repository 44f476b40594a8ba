"""A corpus compared with the existing exemplars."""

from collections.abc import Sequence

from tagbus.stream.contract.events import Exemplar, Tag
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


def test_the_source_is_said() -> None:
    with Corpus("machine") as corpus:
        read(corpus, known("1", "a"))
        assert [one.key for one in corpus.changes()] == ["1/machine"]


def test_labels_mean_the_tags_that_alone_have_them() -> None:
    with Corpus("people") as corpus:
        read(corpus, known("1", labels=["ants"]), known("2", "b", labels=["muurahaiset", "bees", "wasps"]))
        assert [one.accepted for one in corpus.changes()] == [("a",), ("b", "a")]
        assert str(corpus.unknown) == "tags that are not in force: 2, by their uses: 'bees' (1), 'wasps' (1)"


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
