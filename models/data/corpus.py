"""Corpora: tags, and contents with known tags. `open_corpus` picks the reader by the files in a folder:

    DIR with labels.tsv             TSV: train.tsv or train.tsv.xz, val.tsv, test.tsv
    DIR with tags.jsonl             JSON lines: see stream/app/data/jsonl_folder.py
    DIR with lbl.json or Y.txt ...  the formats of the Extreme Classification Repository: see xmc.py
    topics                          `tags` and `exemplars` of the configured Kafka cluster: see topics.py

Contents are streamed, one at a time. Formats without a validation split hold one out of training by a hash of the
content's id (splits.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from tagbus.models.data import xmc
from tagbus.models.data.splits import Split
from tagbus.models.data.topics import TopicCorpus
from tagbus.stream.app.data.corpus import Corpus as Corpus
from tagbus.stream.app.data.corpus import WithSuccessors
from tagbus.stream.app.data.folders import in_folder
from tagbus.stream.app.places import files
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.errors import UserError, shorten

TOPICS: Final = "topics"


def open_corpus(place: str, settings: Settings | None = None) -> Corpus:
    """Open a corpus: a folder, or `topics`. Raises UserError for a folder in no known format."""
    if place == TOPICS:
        return WithSuccessors(TopicCorpus(settings or load()))
    folder = Path(place)
    if (known := in_folder(folder)) is not None:
        return known
    found = xmc.find(folder)
    if found is None:
        raise UserError(
            f"{place} is no corpus: expected a folder with labels.tsv, tags.jsonl or lbl.json, or `{TOPICS}`"
        )
    return xmc.XmcCorpus(found)


@dataclass(frozen=True, slots=True)
class WithoutTags:
    """A corpus without some tags and their annotations, to evaluate these tags as new ones."""

    corpus: Corpus
    left_out: frozenset[str]

    def tags(self) -> list[Tag]:
        """The remaining tags. Raises UserError if a tag to leave out is not in the corpus."""
        tags = self.corpus.tags()
        if strange := sorted(self.left_out - {tag.id for tag in tags}):
            raise UserError(f"cannot leave out {shorten(strange[0])}: the corpus has no such tag")
        return [tag for tag in tags if tag.id not in self.left_out]

    def exemplars(self, split: Split) -> Iterator[Exemplar]:
        """The contents that still have a tag."""
        for item in self.corpus.exemplars(split):
            if kept := tuple(tag for tag in item.accepted if tag not in self.left_out):
                yield item.model_copy(update={"accepted": kept})


@dataclass(frozen=True, slots=True)
class FirstContents:
    """A corpus cut to its first `most` training contents, to compare recipes in minutes."""

    corpus: Corpus
    most: int

    def tags(self) -> list[Tag]:
        """All tags of the corpus."""
        return self.corpus.tags()

    def exemplars(self, split: Split) -> Iterator[Exemplar]:
        """The first training contents; the other splits are whole."""
        return islice(self.corpus.exemplars(split), self.most if split == "train" else None)


def tagged(corpus: Corpus, split: Split) -> Iterator[Exemplar]:
    """The contents of a split that have a tag: nothing is learnt from others, nor measured on them."""
    return (item for item in corpus.exemplars(split) if item.accepted)


def without(corpus: Corpus, file: Path | None) -> Corpus:
    """The corpus without the tags whose ids are listed in `file`, one per line; unchanged if `file` is None."""
    if file is None:
        return corpus
    return WithoutTags(corpus, frozenset(line.value.decode(errors="replace") for line in files.read_lines(file)))


def select(place: str, left_out: Path | None, most: int | None) -> tuple[Corpus, str]:
    """Return the part of a corpus to train on, and its name in plan.json: another selection is another run."""
    corpus, name = without(open_corpus(place), left_out), place
    if left_out is not None:
        name += f" without {left_out}"
    return (corpus, name) if most is None else (FirstContents(corpus, most), f"{name}, the first {most} contents")
