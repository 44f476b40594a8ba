"""Label reinforcement: the names of a content's tags, made as long as a text.

Labels are a few words and texts are many, and BERT reads both. GUDN therefore repeats the labels until they have the
length of a text: in their order (ordered), or each round in an order of its own (disordered).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from tagbus.models.gudn.plan import Labels
from tagbus.stream.errors import UserError


@dataclass(frozen=True, slots=True)
class Names:
    """The token ids of each tag's name, and those that begin and end a text."""

    tokens: tuple[tuple[int, ...], ...]
    begin: int
    end: int

    @classmethod
    def read(cls, names: Sequence[str], tokenizer: Tokenizer) -> Self:
        """Tokenise names. Raises UserError for a tokenizer that does not put a text between two tokens."""
        found = [one.ids for one in tokenizer.encode_batch_fast(["", *names])]
        if len(found[0]) != 2:
            raise UserError(f"the tokenizer puts {len(found[0])} tokens around a text, expected two: [CLS] and [SEP]")
        return cls(tuple(tuple(ids[1:-1]) for ids in found[1:]), *found[0])

    def sequence(self, tags: Sequence[int], how: Labels, most: int, random: np.random.Generator) -> list[int]:
        """The labels of a content as token ids, at most `most`: `raw` once, else repeated until no whole one fits.

        Where not even the first name fits, the longest one is cut.
        """
        room, found = most - 2, [self.begin]
        if not any(self.tokens[tag] for tag in tags):
            # Names of which the tokenizer leaves nothing would repeat without end.
            return [self.begin, self.end]
        for tag in _order(tags, how, random):
            name = self.tokens[tag]
            if len(found) - 1 + len(name) > room:
                break
            found += name
        if len(found) == 1:
            found += max((self.tokens[tag] for tag in tags), key=len)[:room]
        return [*found, self.end]

    def batch(
        self, contents: Sequence[Sequence[int]], how: Labels, most: int, random: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """The labels of contents, padded: ids int64 [n, longest] and their mask float32."""
        rows = [self.sequence(tags, how, most, random) for tags in contents]
        lengths = np.array([len(row) for row in rows])
        there: NDArray[np.bool_] = np.arange(int(lengths.max())) < lengths[:, None]
        ids = np.zeros(there.shape, np.int64)
        ids[there] = np.concatenate([np.array(row, np.int64) for row in rows])
        return torch.from_numpy(ids), torch.from_numpy(there.astype(np.float32))


def _order(tags: Sequence[int], how: Labels, random: np.random.Generator) -> Iterator[int]:
    """The tags in the order in which their names are read: once for `raw`, else without end."""
    for number in count():
        if not len(tags) or (number and how == "raw"):
            return
        yield from (random.permutation(np.asarray(tags)).tolist() if how == "disordered" else tags)
