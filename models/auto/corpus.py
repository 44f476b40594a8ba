"""The corpus of a run, as it was when the run began: in files, so that a resumed run trains on the same."""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tagbus.models.data.corpus import Corpus
from tagbus.models.data.folder import write
from tagbus.models.data.splits import Split, one_in
from tagbus.models.data.texts import text_of
from tagbus.models.evaluate.measure import EvaluationSet
from tagbus.stream.app import console
from tagbus.stream.app.data.jsonl_folder import JsonlFolder
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.errors import UserError, shorten

FOLDER: Final = "corpus"
HELD: Final = "held"
# Where a ranker learns from validation contents, one in four of them is left for the selection.
SHARE: Final = 4
# Propensities need three training contents.
LEAST_TAUGHT: Final = 3


@dataclass(frozen=True, slots=True)
class RunCorpus:
    """The corpus that everything is trained on, in `folder`, and the contents that parts are chosen by."""

    folder: Path

    @property
    def corpus(self) -> Corpus:
        """Its validation contents are what a ranker may learn from."""
        return JsonlFolder(self.folder / FOLDER)

    def held(self) -> list[Exemplar]:
        """Contents that nothing was trained on, for the selection."""
        return list(JsonlFolder(self.folder / HELD).exemplars("val"))

    def by(self, items: Sequence[Exemplar]) -> EvaluationSet:
        """What figures on these contents are measured with: those that have a tag."""
        return replace(EvaluationSet.of(self.corpus), test=[item for item in items if item.accepted])


def take(corpus: Corpus, to: Path, *, ranker_learns: bool) -> RunCorpus:
    """Write the corpus below `to`. `ranker_learns`: a ranker learns from the validation contents.

    Raises UserError for what the trainings or the evaluation would stop at, hours later and for every resumed run.
    """
    taken = RunCorpus(to)
    tags = corpus.tags()
    if not tags:
        raise UserError("the corpus has no tags: there is nothing to train on")
    checked = _Checked(frozenset(tag.id for tag in tags))
    val = list(checked.contents(corpus, "val"))
    held = [item for item in val if not ranker_learns or is_held(item)]
    learnt = [item for item in val if item.accepted and not (ranker_learns and is_held(item))]
    for name in (FOLDER, HELD):
        shutil.rmtree(to / name, ignore_errors=True)
    write(to / HELD, (), {"val": held})
    splits: dict[Split, Iterable[Exemplar]] = {
        "train": checked.contents(corpus, "train"),
        "val": learnt,
        "test": checked.contents(corpus, "test"),
    }
    write(to / FOLDER, tags, splits)
    checked.say()
    return taken


def is_held(item: Exemplar) -> bool:
    """Whether a validation content is left for the selection, by its id alone."""
    return one_in(SHARE, item.id)


@dataclass(slots=True)
class _Checked:
    """Contents with those of their tags that the taxonomy has, each content once; what was left out is counted."""

    known: frozenset[str]
    splits: dict[str, Split] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    unknown: Counter[str] = field(default_factory=Counter)

    def contents(self, corpus: Corpus, split: Split) -> Iterator[Exemplar]:
        """The contents of a split. Raises UserError for one whose id came before, for one that cannot be tagged, and
        for a training split that teaches nothing."""
        taught = 0
        for item in corpus.exemplars(split):
            # A content may have an exemplar of people and one of a machine, in one split.
            if (before := self.splits.setdefault(item.id, split)) != split or item.key in self.keys:
                raise UserError(f"content {shorten(item.id)} comes twice, in {before} and {split}; ids must be unique")
            self.keys.add(item.key)
            if split != "train" and not text_of(item).strip():
                raise UserError(f"content {shorten(item.id)} of {split} has neither title nor text")
            if strange := [tag for tag in item.accepted if tag not in self.known]:
                self.unknown.update(strange)
                item = item.model_copy(update={"accepted": tuple(tag for tag in item.accepted if tag in self.known)})
            taught += bool(item.accepted)
            yield item
        if split == "train" and taught < LEAST_TAUGHT:
            self.say()
            raise UserError(f"{taught} training contents have a tag of the taxonomy, expected {LEAST_TAUGHT} or more")

    def say(self) -> None:
        """Say what was left out."""
        if self.unknown:
            (most, _), *_ = self.unknown.most_common(1)
            console.say(
                f"left out: {self.unknown.total():,} annotations with no tag of the taxonomy, as {shorten(most)}"
            )
