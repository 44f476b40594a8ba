"""The training set of heads: bags, vectors and right tags of contents, and initial vectors of terms and tags."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from tagbus.models.data.corpus import Corpus
from tagbus.models.data.texts import text_of
from tagbus.stream.app import assemble, console, filling
from tagbus.stream.app.places.folders import model_folder
from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.encoder.base import Encoder
from tagbus.stream.errors import UserError
from tagbus.stream.memory import saved
from tagbus.stream.recall.tagvectors import FILE, TagVectors, read
from tagbus.stream.recall.words import Bags, Vocabulary, digest

CHUNK: Final = 4096

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Terms(Protocol):
    """The options that choose the terms: see `models.train.heads.Recipe`."""

    @property
    def words(self) -> int: ...
    @property
    def bigrams(self) -> int: ...
    @property
    def terms(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def named(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Examples:
    """n contents: bags, unit vectors float32 [n, d], and right tags; those of content i start at `tags[starts[i]]`."""

    bags: Bags
    vectors: Floats
    tags: Ints
    starts: Ints

    def __len__(self) -> int:
        return len(self.starts)

    def some(self, rows: Ints) -> "Examples":
        """The contents in these rows, in this order."""
        # Tags have the layout of bags: numbers, and the start of each content's.
        tags = Bags(self.tags, np.zeros(len(self.tags), np.float32), self.starts).rows(rows)
        return Examples(self.bags.rows(rows), self.vectors[rows], tags.terms, tags.starts)

    def pairs(self) -> tuple[Ints, Ints]:
        """Right pairs as content and tag numbers, int64 [m] each."""
        counts = np.diff(self.starts, append=len(self.tags))
        return np.repeat(np.arange(len(self.starts)), counts), self.tags

    def truth(self) -> list[Ints]:
        """The right tags of each content."""
        return np.split(self.tags, self.starts[1:])


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """All inputs of training. `terms` [terms, d] and `names` [t, d] are initial vectors, `counts` int64 [t] the number
    of contents per tag, `digest` a hash of the data."""

    release: str
    tags: tuple[str, ...]
    vocabulary: Vocabulary
    train: Examples
    val: Examples
    terms: Floats
    names: Floats
    counts: Ints
    digest: str


@dataclass(frozen=True, slots=True)
class NameExamples:
    """Tag names as training contents: their bags, repeated `times` times, and the vector of each name [t, d]."""

    bags: Bags
    vectors: Floats
    times: int


async def gather(corpus: Corpus, settings: Settings, folder: Path, cache: Path | None, terms: Terms) -> TrainingSet:
    """Read the corpus, encode what `cache` lacks, and write the vectors to a file in `folder`.

    Bags and right tags are held in memory, about 400 bytes per title; texts are not. Raises UserError if the corpus has
    no training contents.
    """
    with TemporaryDirectory() as spare:
        place = cache or Path(spare)
        async with assemble.in_process(settings, place) as stack:
            count = len(corpus.tags()) + sum(1 for _ in corpus.exemplars("train"))
            with console.bar("encoding contents", count) as bar:
                await filling.fill(
                    stack.projection(), {"tags": corpus.tags(), "exemplars": corpus.exemplars("train")}, bar.advance
                )
            await filling.save_memories(place, stack.memories)
            release, stores = stack.release, place / stack.release.name
            of = release.name, release.dimension
            found = await _training_set(corpus, stack.encoder, stores, folder, terms, of)
            return replace(found, names=initial(model_folder(settings), found))


def initial(folder: Path, found: TrainingSet) -> Floats:
    """The initial vectors of the tags: those that the encoder of the folder was trained with, if it was, otherwise
    those of their names."""
    if not (folder / FILE).exists():
        return found.names
    known = TagVectors.parse(folder / FILE, read(folder)[0])
    if known.release != found.release:
        return found.names
    places = {tag: place for place, tag in enumerate(known.ids)}
    rows = np.array([places.get(tag, -1) for tag in found.tags], np.int64)
    return np.where(rows[:, None] < 0, found.names, known.vectors[rows])


async def _training_set(
    corpus: Corpus, encoder: Encoder, stores: Path, folder: Path, terms: Terms, of: tuple[str, int]
) -> TrainingSet:
    all_tags = corpus.tags()
    known = _known(all_tags, corpus.exemplars("train"))
    if not known:
        raise UserError("no training content has a tag of the taxonomy: there is nothing to train on")
    numbers = {tag.id: number for number, tag in enumerate(known)}
    vocabulary = Vocabulary.learn(
        (text_of(item) for item in corpus.exemplars("train")), terms.words, terms.bigrams, terms.terms
    )
    if not vocabulary.terms:
        raise UserError(f"no word is in {terms.words} training contents: there is nothing to train on")
    starts = await _encode(encoder, vocabulary.terms)
    if terms.rows:
        starts = _shared(vocabulary, starts, terms.rows)
        vocabulary = vocabulary.hashed(terms.rows)
    names = np.empty((len(known), of[1]), np.float32)
    _fetch(stores / "tags", of, numbers, names)
    own = NameExamples(vocabulary.bags([tag.name for tag in known] * terms.named), names, terms.named)
    train = _train(corpus, vocabulary, numbers, stores, folder, of, own)
    counts = np.bincount(train.tags, minlength=len(known)) - terms.named
    held = [item for item in corpus.exemplars("val") if any(tag in numbers for tag in item.accepted)]
    vectors = await _encode(encoder, [text_of(item) for item in held])
    val = Examples(vocabulary.bags(text_of(item) for item in held), vectors, *_right(held, numbers))
    ids = tuple(tag.id for tag in known)
    return TrainingSet(
        of[0], ids, vocabulary, train, val, starts, names, counts, _digest(of[0], ids, vocabulary, train)
    )


def _known(tags: Sequence[Tag], items: Iterable[Exemplar]) -> list[Tag]:
    """The tags with at least one training content."""
    carried = {tag for item in items for tag in item.accepted}
    return [tag for tag in tags if tag.id in carried]


def _train(
    corpus: Corpus,
    vocabulary: Vocabulary,
    numbers: dict[str, int],
    stores: Path,
    folder: Path,
    of: tuple[str, int],
    own: NameExamples,
) -> Examples:
    """The training contents, followed by the tag names. The vectors are memory-mapped from a file in the folder."""
    items = {item.key: place for place, item in enumerate(_teaching(corpus, numbers))}
    bags = vocabulary.bags(text_of(item) for item in _teaching(corpus, numbers))
    tags, starts = _right(_teaching(corpus, numbers), numbers)
    if len(items) != len(starts):
        raise UserError(f"{len(starts)} training contents have only {len(items)} distinct ids; ids must be unique")
    more = np.tile(np.arange(len(numbers)), own.times)
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (len(items) + len(more), of[1]))
    _fetch(stores / "exemplars", of, items, vectors)
    vectors[len(items) :] = own.vectors[more]
    joined = Bags(
        np.concatenate([bags.terms, own.bags.terms]),
        np.concatenate([bags.weights, own.bags.weights]),
        np.concatenate([bags.starts, own.bags.starts + len(bags.terms)]),
    )
    last = len(tags) + np.arange(len(more))
    return Examples(joined, vectors, np.concatenate([tags, more]), np.concatenate([starts, last]))


def _teaching(corpus: Corpus, numbers: dict[str, int]) -> Iterator[Exemplar]:
    return (item for item in corpus.exemplars("train") if any(tag in numbers for tag in item.accepted))


def _right(items: Iterable[Exemplar], numbers: dict[str, int]) -> tuple[Ints, Ints]:
    """Right tags of the contents, and the start of each content's."""
    rows = [sorted({numbers[tag] for tag in item.accepted if tag in numbers}) for item in items]
    lengths = np.array([len(row) for row in rows], np.int64)
    return np.array([tag for row in rows for tag in row], np.int64), np.cumsum(lengths) - lengths


def _fetch(store: Path, of: tuple[str, int], places: dict[str, int], to: Floats) -> None:
    """Copy the vectors of these keys from a store to the rows of `to`."""
    for batch in saved.read(store, *of):
        for key, vector in zip(batch.keys, batch.vectors, strict=True):
            if (place := places.get(key)) is not None:
                to[place] = vector


async def _encode(encoder: Encoder, texts: Sequence[str]) -> Floats:
    chunks = iter(texts)
    parts = [np.empty((0, encoder.release.dimension), np.float32)]
    with console.bar("encoding terms and held-out contents", len(texts)) as bar:
        while some := list(islice(chunks, CHUNK)):
            parts.append(await encoder.encode(some))
            bar.advance(len(some))
    return np.concatenate(parts)


def _shared(vocabulary: Vocabulary, starts: Floats, rows: int) -> Floats:
    """Initial vectors of hashed rows: the mean of their terms, weighted by frequency."""
    sums = np.zeros((rows, starts.shape[1]), np.float32)
    places = np.array([digest(term, rows) for term in vocabulary.terms or ()], np.int64)
    np.add.at(sums, places, starts * np.array(vocabulary.frequencies, np.float32)[:, None])
    return sums / np.maximum(np.bincount(places, vocabulary.frequencies, rows), 1).astype(np.float32)[:, None]


def _digest(release: str, tags: Sequence[str], vocabulary: Vocabulary, train: Examples) -> str:
    found = hashlib.sha256("\n".join([release, *tags]).encode())
    for part in (vocabulary.dump(), train.tags.tobytes(), train.bags.terms.tobytes()):
        found.update(hashlib.sha256(part).digest())
    return found.hexdigest()[:16]
