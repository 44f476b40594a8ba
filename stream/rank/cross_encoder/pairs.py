"""Pairs of a tag's and a content's text, which the cross-encoder reads as one row of tokens."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from tagbus.stream.encoder.tokens import BATCH_TOKENS, CHARACTERS_A_TOKEN
from tagbus.stream.memory.store import Payload
from tagbus.stream.recall.neighbours import texts

INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")

Pair = tuple[str, str]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Wording:
    """The texts of a batch: contents by row, tags by number (`ids`) with their payloads."""

    contents: Sequence[str]
    ids: Sequence[str]
    payloads: Mapping[str, Payload]

    def pairs(self, rows: Ints, tags: Ints) -> list[Pair]:
        """A tag's text and a content's, for each pair of a row and a number."""
        named = {tag: self._text(tag) for tag in np.unique(tags).tolist()}
        return [(named[tag], self.contents[row]) for row, tag in zip(rows.tolist(), tags.tolist(), strict=True)]

    def _text(self, tag: int) -> str:
        payload = self.payloads[self.ids[tag]]
        return tag_text(cast(str, payload["name"]), texts(payload, "aliases"))


def tag_text(name: str, aliases: Sequence[str]) -> str:
    """The text of a tag: its name, and a line of its aliases. Its training data had no descriptions."""
    return "\n".join(part for part in (name.strip(), ", ".join(aliases)) if part)


class PairReader:
    """Tokenises pairs as "[CLS] tag [SEP] content [SEP]"; the longer of the two is truncated first."""

    def __init__(self, tokenizer: str, most: int) -> None:
        """`tokenizer`: the JSON of a tokenizer; `most`: limit of tokens per pair."""
        self._characters = CHARACTERS_A_TOKEN * most
        self._tokenizer = Tokenizer.from_str(tokenizer)
        self._tokenizer.enable_truncation(most, strategy="longest_first")
        self._tokenizer.no_padding()
        # "[SEP]" in a content is five characters, not the end of a segment.
        self._tokenizer.encode_special_tokens = True

    def tokens(self, pairs: Sequence[Pair]) -> list[Encoding]:
        """The tokens of each pair, unpadded."""
        cut = [(tag[: self._characters], content[: self._characters]) for tag, content in pairs]
        return self._tokenizer.encode_batch_fast(cut)


def pad(tokens: Sequence[Encoding], length: int) -> dict[str, Ints]:
    """The pairs as the model's inputs, int64 [len(tokens), length] each."""
    feed = {name: np.zeros((len(tokens), length), np.int64) for name in INPUTS}
    for row, one in enumerate(tokens):
        for name, values in zip(INPUTS, (one.ids, one.attention_mask, one.type_ids), strict=True):
            feed[name][row, : len(values)] = values
    return feed


def cut(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Group pairs into batches, longest first, which keeps padding small."""
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if rows and lengths[rows[0]] * (len(rows) + 1) > BATCH_TOKENS:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows
