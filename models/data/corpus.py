"""Annotated contents as training reads them, from whatever form they are in, one at a time.

A place is one of:

    DIR with labels.tsv             TSV: train.tsv or train.tsv.xz, val.tsv, test.tsv
    DIR with tags.jsonl             JSON lines: exemplars.jsonl (or train.jsonl) to train on, calibration.jsonl (or
                                    val.jsonl), and content.jsonl with answers.jsonl (or test.jsonl)
    DIR with lbl.json or Y.txt ...  the forms of the Extreme Classification Repository: see models/data/xmc.py
    topics                          `tags` and `exemplars` of the Kafka that the settings name, people's decisions only

Where a form has no validation contents of its own, those are held out of training by a hash of their id.
"""

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tagbus.models.data import xmc
from tagbus.stream.app import files, records
from tagbus.stream.app.data_folder import DataFolder, made
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.codec import Tombstone, decode_exemplar, decode_tag, parse
from tagbus.stream.contract.events import Content, Exemplar, Tag
from tagbus.stream.contract.fields import Event
from tagbus.stream.encoder.release import RELEASE, Release, content_text, default_folder
from tagbus.stream.errors import Poison, UserError, shorten
from tagbus.stream.kafka.message import record_of

Split = Literal["train", "val", "test"]

TOPICS: Final = "topics"
# One content in so many is held out for validation, and for topics as many for the test.
HELD_OUT: Final = 50

E = TypeVar("E", bound=Event)


class Corpus(Protocol):
    """Tags, and contents whose tags are known."""

    def tags(self) -> list[Tag]:
        """The taxonomy. Raises UserError that names file and line."""
        ...

    def exemplars(self, split: Split) -> Iterator[Exemplar]:
        """The contents of a split, one at a time, always in the same order. Raises UserError as `tags` does."""
        ...


def open_corpus(place: str, settings: Settings | None = None) -> Corpus:
    """The corpus at a place. Raises UserError for a folder that has none of the forms above."""
    if place == TOPICS:
        return TopicCorpus(settings or load())
    folder = Path(place)
    if (folder / "labels.tsv").exists():
        return DataFolder(folder)
    if (folder / "tags.jsonl").exists():
        return JsonlFolder(folder)
    found = xmc.find(folder)
    if found is None:
        raise UserError(
            f"{place} is no corpus: expected a folder with labels.tsv, tags.jsonl or lbl.json, or `{TOPICS}`"
        )
    return Held(found)


@dataclass(frozen=True, slots=True)
class Without:
    """A corpus without some tags and all annotations with them, so that these can play new tags."""

    corpus: Corpus
    left_out: frozenset[str]

    def tags(self) -> list[Tag]:
        """The other tags. Raises UserError for one to leave out that is not there."""
        tags = self.corpus.tags()
        if strange := sorted(self.left_out - {tag.id for tag in tags}):
            raise UserError(f"{shorten(strange[0])} is to be left out, and is no tag of the corpus")
        return [tag for tag in tags if tag.id not in self.left_out]

    def exemplars(self, split: Split) -> Iterator[Exemplar]:
        """The contents that keep a tag."""
        for item in self.corpus.exemplars(split):
            if kept := tuple(tag for tag in item.accepted if tag not in self.left_out):
                yield item.model_copy(update={"accepted": kept})


def without(corpus: Corpus, file: Path | None) -> Corpus:
    """The corpus without the tags whose ids stand in a file, one a line; all of it where no file is given."""
    if file is None:
        return corpus
    return Without(corpus, frozenset(line.value.decode(errors="replace") for line in files.read_lines(file)))


def part_of(place: str, left_out: Path | None, most: int | None) -> tuple[Corpus, str]:
    """What a command is to train on, and how its plan names it: another part is another run."""
    corpus, name = without(open_corpus(place), left_out), place
    if left_out is not None:
        name += f" without {left_out}"
    return (corpus, name) if most is None else (First(corpus, most), f"{name}, the first {most} contents")


@dataclass(frozen=True, slots=True)
class First:
    """A corpus with its first training contents only, to compare recipes in minutes."""

    corpus: Corpus
    most: int

    def tags(self) -> list[Tag]:
        """All of them."""
        return self.corpus.tags()

    def exemplars(self, split: Split) -> Iterator[Exemplar]:
        """The first of training, and all of the others."""
        return islice(self.corpus.exemplars(split), self.most if split == "train" else None)


@dataclass(frozen=True, slots=True)
class Truth:
    """Which tags are right: content i has tags[starts[i] : starts[i + 1]], int32 tag numbers, rising."""

    starts: NDArray[np.int64]
    tags: NDArray[np.int32]

    @classmethod
    def of(cls, rows: Iterable[Iterable[int]]) -> "Truth":
        """From the tag numbers of each content."""
        tags, lengths = array("i"), array("q", [0])
        for row in rows:
            tags.extend(sorted(set(row)))
            lengths.append(len(tags))
        return cls(np.array(lengths, np.int64), np.array(tags, np.int32))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, content: int) -> NDArray[np.int32]:
        return self.tags[self.starts[content] : self.starts[content + 1]]

    def pairs(self, contents: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Every right pair of these contents: place in `contents` and tag number, int64 [m] each."""
        lengths = self.starts[contents + 1] - self.starts[contents]
        rows = np.repeat(np.arange(len(contents)), lengths)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return rows, self.tags[np.repeat(self.starts[contents], lengths) + within].astype(np.int64)

    def lists(self) -> list[NDArray[np.int64]]:
        """The tags of each content, as the measures take them."""
        return [self[content].astype(np.int64) for content in range(len(self))]


def numbers_of(item: Exemplar, numbers: Mapping[str, int]) -> list[int]:
    """The numbers of a content's tags. Raises UserError for a tag that the taxonomy does not have."""
    try:
        return [numbers[tag] for tag in item.accepted]
    except KeyError as error:
        raise UserError(f"content {shorten(item.id)}: {shorten(error.args[0])} is no tag of the corpus") from None


def tag_texts(tags: Sequence[Tag], parents: Literal["parents", "plain"] = "plain") -> list[str]:
    """The text of each tag: by the template of the shipped release (name, aliases, description), as the tagger encodes
    it, and with `parents` a last line of the names of its parents, which the tagger does not give."""
    template = Release.model_validate_json((default_folder() / RELEASE).read_bytes())
    names = {tag.id: tag.name for tag in tags} if parents == "parents" else {}
    found = []
    for tag in tags:
        above = ", ".join(names[parent] for parent in tag.parents if parent in names)
        text = template.tag_text(tag.name, tag.aliases, tag.description)
        found.append(f"{text}\n{above}" if above else text)
    return found


def text_of(item: Exemplar) -> str:
    """The text of a content as the tagger encodes it."""
    return content_text(item.title, item.text)


@dataclass(frozen=True, slots=True)
class JsonlFolder:
    """A folder of JSON lines in the models of the topics, as examples/ is one."""

    folder: Path

    def tags(self) -> list[Tag]:
        """The taxonomy of tags.jsonl."""
        return list(_events(self.folder / "tags.jsonl", files.tag_of))

    def exemplars(self, split: Split) -> Iterator[Exemplar]:
        """The contents of a split. Raises UserError where a content of the test has no answer."""
        whole = {"train": ("train", "exemplars"), "val": ("val", "calibration"), "test": ("test",)}[split]
        for name in whole:
            if (path := self.folder / f"{name}.jsonl").exists():
                return _events(path, files.exemplar_of)
        if split == "test" and (self.folder / "content.jsonl").exists():
            return self._joined()
        raise UserError(f"{self.folder} has no {' or '.join(f'{name}.jsonl' for name in whole)}")

    def _joined(self) -> Iterator[Exemplar]:
        path = self.folder / "answers.jsonl"
        answers = {answer.id: answer.accepted for answer in _events(path, lambda line: parse(line.value, Exemplar))}
        for content in _events(self.folder / "content.jsonl", lambda line: parse(line.value, Content)):
            if content.id not in answers:
                raise UserError(f"{path}: no answer for content {shorten(content.id)}")
            yield Exemplar(id=content.id, title=content.title, text=content.text, accepted=answers[content.id])


def _events(path: Path, read: Callable[[files.Line], E]) -> Iterator[E]:
    """The events of a file. Raises UserError that names line and field."""
    for line in files.read_lines(path):
        try:
            yield read(line)
        except Poison as error:
            raise UserError(f"{line.place}: {error}") from None


@dataclass(frozen=True, slots=True)
class TopicCorpus:
    """The topics `tags` and `exemplars`, as far as they are now. Each reading reads them twice: once for which record
    of a key is the last (8 bytes and an offset a key are kept), once for the records."""

    settings: Settings

    def tags(self) -> list[Tag]:
        """The tags that are not retired."""
        found: dict[str, Tag] = {}
        topic = self.settings.topics.tags
        for message in records.read(self.settings, records.stretch(self.settings, topic)):
            try:
                event = decode_tag(record_of(message))
            except Poison:
                continue  # what memory skips is no tag
            if isinstance(event, Tombstone):
                found.pop(event.key, None)
            else:
                found[event.id] = event
        return list(found.values())

    def exemplars(self, split: Split) -> Iterator[Exemplar]:
        """People's decisions that have a text and a right tag; one of 50 is for validation and one for the test."""
        what = records.stretch(self.settings, self.settings.topics.exemplars)
        last: dict[bytes, tuple[int, int]] = {}
        for message in records.read(self.settings, what):
            last[_digest(record_of(message).key or b"")] = (message.partition() or 0, message.offset() or 0)
        for message in records.read(self.settings, what):
            record = record_of(message)
            if last[_digest(record.key or b"")] != (message.partition() or 0, message.offset() or 0):
                continue
            try:
                event = decode_exemplar(record)
            except Poison:
                continue
            if isinstance(event, Exemplar) and _teaches(event) and _split(event.id) == split:
                yield event


def _teaches(item: Exemplar) -> bool:
    return item.source == "people" and bool(item.accepted and text_of(item))


@dataclass(frozen=True, slots=True)
class Held:
    """A folder of the Extreme Classification Repository, with validation contents held out of its training set."""

    folder: xmc.Folder

    def tags(self) -> list[Tag]:
        """The labels, with their numbers as ids."""
        return [
            made(Tag, place, id=str(number), name=name) for number, (place, name) in enumerate(self.folder.labels())
        ]

    def exemplars(self, split: Split) -> Iterator[Exemplar]:
        """The contents that have a label at all; the others teach nothing."""
        rows = self.folder.rows("tst" if split == "test" else "trn")
        for number, row in enumerate(rows):
            name = f"{'tst' if split == 'test' else 'trn'}-{number}"
            if row.labels and row.text and (split == "test" or (_split(name) == "val") == (split == "val")):
                accepted = tuple(map(str, row.labels))
                yield made(Exemplar, row.place, id=name, title=row.title, text=row.text, accepted=accepted)


def _split(name: str) -> Split:
    """Where a content belongs, by its id alone: it stays there when others come."""
    place = int.from_bytes(_digest(name.encode())) % HELD_OUT
    return "val" if place == 0 else "test" if place == 1 else "train"


def _digest(key: bytes) -> bytes:
    # Of a million keys two share 64 bits once in 40 million times.
    return hashlib.blake2b(key, digest_size=8).digest()
