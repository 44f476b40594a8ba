"""Tokenize texts the same way for every encoder of a release, and pad token ids to batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tagbus.stream.encoder.release import TOKENIZER
from tagbus.stream.errors import shorten

# Text is cut before tokenization: a token is 4 to 5 characters of prose, so 32 per token reach past the last token read
# in all but blank or unbroken text, and 1 MB costs no more than 8 kB.
CHARACTERS_A_TOKEN: Final = 32
# Larger runs are no faster (6,000 to 7,000 tokens a second per core from 128 tokens up) and take memory: on two threads
# the process peaks at 330 MB with 1,024 and at 1.1 GB with 8,192.
BATCH_TOKENS: Final = 1024


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts of similar length: `rows` are their numbers, `ids` and `mask` are int64 [len(rows), length]."""

    rows: list[int]
    ids: NDArray[np.int64]
    mask: NDArray[np.int64]


class Limited(Protocol):
    """What says how much of a text a model reads: a release, or the manifest of a trained component."""

    @property
    def max_tokens(self) -> int:
        """[CLS] and [SEP] among them."""


class TextReader:
    """The tokenizer of a release, or of another model that reads texts as an encoder does."""

    def __init__(self, folder: Path, release: Limited) -> None:
        """`folder` holds the release, already verified."""
        self._characters = CHARACTERS_A_TOKEN * release.max_tokens
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.enable_truncation(release.max_tokens)
        self._tokenizer.no_padding()
        # "[SEP]" in a content is plain text, not a separator token.
        self._tokenizer.encode_special_tokens = True

    def read(self, text: str) -> str:
        """The part of the text that affects its vector."""
        return text[: self._characters]

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, including [CLS] and [SEP].

        Raises ValueError for a text with lone surrogates, which is not Unicode text.
        """
        for number, text in enumerate(texts):
            _require_unicode(number, text)
        encodings = self._tokenizer.encode_batch_fast([self.read(text) for text in texts])
        return [encoding.ids for encoding in encodings]


def pad(rows: list[int], tokens: Sequence[Sequence[int]], length: int) -> Batch:
    """Batch the texts of these rows, padded to `length` tokens."""
    ids = np.zeros((len(rows), length), dtype=np.int64)
    mask = np.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(tokens[row])] = tokens[row]
        mask[place, : len(tokens[row])] = 1
    return Batch(rows, ids, mask)


def _require_unicode(number: int, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = shorten(text[max(0, error.start - 10) : error.start + 10])
        raise ValueError(
            f"text number {number} has a lone surrogate at character {error.start}: {around}; expected Unicode text"
        ) from None
