"""Words and bigrams of a text as a TF-IDF weighted bag: an input of classifiers besides the vector.

A classifier knows the terms of its training by name (`Vocabulary.learn`), or only by a hash of the name (`hashed`),
which saves the term list at the price of collisions.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice, pairwise
from typing import Final, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tagbus.stream.errors import UserError, shorten
from tagbus.stream.recall.scripts import DENSE, normal

# Characters read of a text: the encoder reads no more either.
CHARACTERS: Final = 8_192
WORDS: Final = 2_048
# Longer runs of letters are not words. A bigram has at most two of these and a space.
LETTERS: Final = 64
# Limit of terms per bag; those with the highest weight win.
TERMS: Final = 512
# Counts kept while learning a vocabulary: 0.5 GB. Beyond that the rarest are dropped.
COUNTS: Final = 4_000_000

# Accents, points and vowel signs (Hebrew, Arabic, the scripts of India): `\w` treats them as word boundaries.
_MARKS: Final = "\u0300-\u036f\u0483-\u0489\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"
# A word has at least two letters or digits, as in scikit-learn's TF-IDF.
_WORD: Final = re.compile(rf"[{DENSE}]|[^\W{DENSE}](?:[^\W{DENSE}]|[{_MARKS}])+")


@dataclass(frozen=True, slots=True)
class Bags:
    """The bags of n texts, concatenated: `terms` int64 [m], `weights` float32 [m], `starts` int64 [n]."""

    terms: NDArray[np.int64]
    weights: NDArray[np.float32]
    starts: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of terms of each bag, int64 [n]."""
        return np.diff(self.starts, append=len(self.terms))

    def rows(self, rows: NDArray[np.int64]) -> "Bags":
        """Select the bags of some texts, in that order."""
        lengths = self.lengths[rows]
        starts = np.cumsum(lengths) - lengths
        places = np.arange(lengths.sum()) + np.repeat(self.starts[rows] - starts, lengths)
        return Bags(self.terms[places], self.weights[places], starts)

    def padded(self, length: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Terms int64 [n, length] and weights float32 [n, length]; padding has weight 0. No bag may be longer."""
        terms = np.zeros((len(self.starts), length), np.int64)
        weights = np.zeros((len(self.starts), length), np.float32)
        there = np.arange(length) < self.lengths[:, None]
        terms[there], weights[there] = self.terms, self.weights
        return terms, weights


@dataclass(frozen=True)
class Vocabulary:
    """The terms a classifier knows, by number: their document frequencies in `texts` training texts, and their names.

    Without names the number of a term is its CRC-32 modulo the number of terms.
    """

    frequencies: tuple[int, ...]
    texts: int
    terms: tuple[str, ...] | None = None

    @classmethod
    def learn(cls, texts: Iterable[str], words: int = 2, bigrams: int = 4, most: int | None = None) -> Self:
        """Learn every word in at least `words` texts and every bigram in at least `bigrams`, most frequent first.

        Beyond `most` terms the rarest are dropped.
        """
        counts: Counter[str] = Counter()
        seen = least = 0
        for text in texts:
            seen += 1
            counts.update(set(terms_of(text)))
            while len(counts) > COUNTS:
                least += 1
                counts = Counter({term: count for term, count in counts.items() if count > least})
        kept = [(term, count) for term, count in counts.items() if count >= (bigrams if " " in term else words)]
        kept = sorted(kept, key=lambda pair: (-pair[1], pair[0]))[:most]
        return cls(tuple(count for _, count in kept), seen, tuple(term for term, _ in kept))

    def some(self, numbers: Sequence[int]) -> "Vocabulary":
        """Only those terms, in that order."""
        names = None if self.terms is None else tuple(self.terms[number] for number in numbers)
        return Vocabulary(tuple(self.frequencies[number] for number in numbers), self.texts, names)

    def hashed(self, rows: int) -> "Vocabulary":
        """The same terms by hash only: `rows` numbers, with collisions."""
        frequencies = [0] * rows
        for term, frequency in zip(self.terms or (), self.frequencies, strict=True):
            frequencies[digest(term, rows)] += frequency
        return Vocabulary(tuple(min(frequency, self.texts) for frequency in frequencies), self.texts)

    def bags(self, texts: Iterable[str]) -> Bags:
        """TF-IDF with logarithmic term frequency, normalized to length 1 (Salton and Buckley 1988, `ltc`)."""
        bags = [self._bag(text) for text in texts]
        lengths = np.array([len(terms) for terms, _ in bags], np.int64)
        terms = np.fromiter(chain.from_iterable(terms for terms, _ in bags), np.int64, lengths.sum())
        weights = np.fromiter(chain.from_iterable(weights for _, weights in bags), np.float32, lengths.sum())
        return Bags(terms, weights, np.cumsum(lengths) - lengths)

    def dump(self) -> bytes:
        """words.json."""
        return _File(texts=self.texts, frequencies=self.frequencies, terms=self.terms).model_dump_json().encode()

    @classmethod
    def parse(cls, place: str, content: bytes) -> Self:
        """Parse the output of `dump`. Raises UserError that names the place, the field and the expected value."""
        try:
            file = _File.model_validate_json(content)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in problem["loc"]) or "the file"
            raise UserError(f"{place}: {field}: {shorten(problem['input'])}: {problem['msg']}") from None
        return cls(file.frequencies, file.texts, file.terms)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {term: number for number, term in enumerate(self.terms or ())}

    @cached_property
    def _rarity(self) -> list[float]:
        return [math.log((1 + self.texts) / (1 + frequency)) + 1 for frequency in self.frequencies]

    def _number(self, term: str) -> int | None:
        return digest(term, len(self.frequencies)) if self.terms is None else self._index.get(term)

    def _bag(self, text: str) -> tuple[list[int], list[float]]:
        rarity = self._rarity
        counts = Counter(number for term in terms_of(text) if (number := self._number(term)) is not None)
        weighted = [(number, rarity[number] * (1 + math.log(count))) for number, count in counts.items()]
        if len(weighted) > TERMS:
            weighted = sorted(weighted, key=lambda pair: -pair[1])[:TERMS]
        length = math.sqrt(sum(weight * weight for _, weight in weighted)) or 1.0
        return [number for number, _ in weighted], [weight / length for _, weight in weighted]


class _File(BaseModel):
    """words.json; `terms` is null for hashed terms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    texts: int = Field(ge=0)
    frequencies: tuple[int, ...] = Field(min_length=1, max_length=COUNTS)
    terms: tuple[str, ...] | None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.terms is not None and len(self.terms) != len(self.frequencies):
            raise ValueError(f"{len(self.terms)} terms and {len(self.frequencies)} frequencies")
        if not 0 <= min(self.frequencies) <= max(self.frequencies) <= self.texts:
            raise ValueError(f"a frequency that is not between 0 and {self.texts} texts")
        return self


def words_of(text: str) -> list[str]:
    """The first words of a text as they are written, with repetitions; at most 2,048."""
    found = islice((match.group() for match in _WORD.finditer(normal(text[:CHARACTERS]))), WORDS)
    return [word for word in found if len(word) <= LETTERS]


def terms_of(text: str) -> Iterator[str]:
    """The words of a text, then its bigrams, with repetitions."""
    words = words_of(text[:CHARACTERS].casefold())
    yield from words
    for first, second in pairwise(words):
        yield f"{first} {second}"


def digest(term: str, rows: int) -> int:
    """The number of a term among `rows`; the same on every machine."""
    return crc32(term.encode("utf-8", "surrogatepass")) % rows
