"""What a run takes of a corpus, and what it refuses before anything is trained."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tagbus.models.auto.corpus import take
from tagbus.models.data.splits import Split
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.errors import UserError

TAGS = (Tag(id="a", name="bees"), Tag(id="b", name="boats"))


@dataclass(frozen=True)
class InMemory:
    """A corpus of ten training contents, five for validation and five to test with, but for what is given."""

    splits: dict[Split, Sequence[Exemplar]]
    taxonomy: Sequence[Tag] = TAGS

    def tags(self) -> list[Tag]:
        return list(self.taxonomy)

    def exemplars(self, split: Split) -> Iterator[Exemplar]:
        return iter(self.splits.get(split, contents(split)))


def contents(split: Split) -> list[Exemplar]:
    return [content(f"{split}-{number}") for number in range(10 if split == "train" else 5)]


def content(name: str, *tags: str, text: str = "Hives") -> Exemplar:
    return Exemplar(id=name, text=text, accepted=tags or ("a",))


REFUSED: dict[str, tuple[InMemory, str]] = {
    "an id that comes twice": (
        InMemory({"train": [*contents("train"), content("train-3")]}),
        "content 'train-3' comes twice, in train and train; ids must be unique",
    ),
    # Its figures would be those of a content that is in memory.
    "a test content that is trained on": (
        InMemory({"test": [content("train-0")]}),
        "content 'train-0' comes twice, in train and test; ids must be unique",
    ),
    "a validation content without a text": (
        InMemory({"val": [content("v", text="")]}),
        "content 'v' of val has neither title nor text",
    ),
    "no tags": (InMemory({}, ()), "the corpus has no tags: there is nothing to train on"),
    "contents that name no tag": (
        InMemory({"train": [content(str(number), "1, 2") for number in range(10)]}),
        "0 training contents have a tag of the taxonomy, expected 3 or more",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_stop_a_training_is_refused_before_it_begins(case: str, tmp_path: Path) -> None:
    """A resumed run has the corpus of its beginning: it would stop at the same place, whatever was mended since."""
    corpus, expected = REFUSED[case]
    with pytest.raises(UserError) as refused:
        take(corpus, tmp_path, ranker_learns=False)
    assert str(refused.value) == expected


def test_annotations_that_name_no_tag_are_left_out_and_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train = [*contents("train"), content("c", "a", "z"), content("d", "z"), content("e", "y")]
    taken = take(InMemory({"train": train}), tmp_path, ranker_learns=False)
    assert [item.accepted for item in taken.corpus.exemplars("train")][10:] == [("a",), (), ()]
    assert "left out: 3 annotations with no tag of the taxonomy, as 'z'" in capfd.readouterr().err.replace("\n", " ")


def test_a_content_may_have_an_exemplar_of_people_and_one_of_a_machine(tmp_path: Path) -> None:
    train = [*contents("train"), content("train-0").model_copy(update={"source": "machine"})]
    taken = take(InMemory({"train": train}), tmp_path, ranker_learns=False)
    assert len(list(taken.corpus.exemplars("train"))) == 11
