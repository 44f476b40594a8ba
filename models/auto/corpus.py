"""The corpus of a run, as it was when the run began: in files, so that a resumed run trains on the same."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tagbus.models.data.corpus import Corpus
from tagbus.models.data.folder import write
from tagbus.models.data.splits import Split, one_in
from tagbus.models.evaluate.measure import EvaluationSet
from tagbus.stream.app.data.jsonl_folder import JsonlFolder
from tagbus.stream.contract.events import Exemplar

FOLDER: Final = "corpus"
HELD: Final = "held"
# Where a ranker learns from validation contents, one in four of them is left for the selection.
SHARE: Final = 4


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
    """Write the corpus below `to`. `ranker_learns`: a ranker learns from the validation contents."""
    taken = RunCorpus(to)
    tags = corpus.tags()
    known = {tag.id for tag in tags}
    val = [_known(item, known) for item in corpus.exemplars("val")]
    held = [item for item in val if not ranker_learns or is_held(item)]
    learnt = [item for item in val if item.accepted and not (ranker_learns and is_held(item))]
    for name in (FOLDER, HELD):
        shutil.rmtree(to / name, ignore_errors=True)
    write(to / HELD, (), {"val": held})
    splits: dict[Split, Iterable[Exemplar]] = {
        "train": (_known(item, known) for item in corpus.exemplars("train")),
        "val": learnt,
        "test": (_known(item, known) for item in corpus.exemplars("test")),
    }
    write(to / FOLDER, tags, splits)
    return taken


def is_held(item: Exemplar) -> bool:
    """Whether a validation content is left for the selection, by its id alone."""
    return one_in(SHARE, item.id)


def _known(item: Exemplar, known: set[str]) -> Exemplar:
    """The content with those of its tags that the taxonomy has."""
    if known.issuperset(item.accepted):
        return item
    return item.model_copy(update={"accepted": tuple(tag for tag in item.accepted if tag in known)})
