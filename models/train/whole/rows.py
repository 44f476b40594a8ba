"""The texts of a run as token ids, with the right tags of each: contents first, then the text of every tag.

A tag's text is a content whose only right tag is that one (Renee, Jain et al. 2023, table 12), so that the text of a
new tag is embedded near its contents.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from tagbus.models.data.truth import Truth
from tagbus.models.train.hidden import Row
from tagbus.models.train.top_layers import batches
from tagbus.stream.app.places.files import chunks

Ints = NDArray[np.int64]
CHUNK: Final = 4096


@dataclass(frozen=True, slots=True)
class Batch:
    """n texts: `ids` int64 [n, longest], `lengths` int64 [n]; text `rows[i]` has the right tag `tags[i]`, int64 [m]."""

    ids: Tensor
    lengths: Tensor
    rows: Tensor
    tags: Tensor

    @property
    def mask(self) -> Tensor:
        """float32 [n, longest]: 1 for a token."""
        return (torch.arange(self.ids.shape[1], device=self.ids.device) < self.lengths[:, None]).float()

    def thinned(self, share: float) -> "Batch":
        """Return the batch with this share of the tokens dropped, except the first and the last of a text."""
        place = torch.arange(self.ids.shape[1], device=self.ids.device)
        inner = (place > 0) & (place < self.lengths[:, None] - 1)
        there = place < self.lengths[:, None]
        kept = there & ~(inner & (torch.rand(self.ids.shape, device=self.ids.device) < share))
        # A text with no token left is read whole.
        kept = torch.where(kept.sum(1, keepdim=True) > 2, kept, there)
        order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)
        return Batch(self.ids.gather(1, order), kept.sum(1), self.rows, self.tags)


@dataclass(frozen=True, slots=True)
class Rows:
    """Token ids int32 of all texts, text i from `starts[i]` to `starts[i + 1]`, and the right tags of each."""

    ids: NDArray[np.int32]
    starts: Ints
    truth: Truth

    @classmethod
    def read(cls, rows: Iterable[Row], tokenizer: Tokenizer, advance: Callable[[int], None]) -> "Rows":
        """Tokenise texts with their right tags, in order."""
        ids, lengths, right = [np.zeros(0, np.int32)], [0], []
        for chunk in chunks(rows, CHUNK):
            encoded = [one.ids for one in tokenizer.encode_batch_fast([text for text, _ in chunk])]
            ids.append(np.concatenate([np.array(one, np.int32) for one in encoded]))
            lengths += map(len, encoded)
            right += [list(tags) for _, tags in chunk]
            advance(len(chunk))
        return cls(np.concatenate(ids), np.cumsum(lengths), Truth.of(right))

    def __len__(self) -> int:
        return len(self.truth)

    def __add__(self, other: "Rows") -> "Rows":
        truth = Truth(
            np.concatenate([self.truth.starts, other.truth.starts[1:] + self.truth.starts[-1]]),
            np.concatenate([self.truth.tags, other.truth.tags]),
        )
        starts = np.concatenate([self.starts, other.starts[1:] + self.starts[-1]])
        return Rows(np.concatenate([self.ids, other.ids]), starts, truth)

    @property
    def lengths(self) -> Ints:
        """Tokens of each text, int64 [n]."""
        return np.diff(self.starts)

    def batch(self, rows: Ints, device: torch.device) -> Batch:
        """Return these texts as a batch."""
        lengths = self.lengths[rows]
        there = np.arange(int(lengths.max())) < lengths[:, None]
        ids = np.zeros(there.shape, np.int64)
        first = np.repeat(self.starts[rows], lengths)
        within = np.arange(len(first)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        ids[there] = self.ids[first + within]
        arrays = (ids, lengths, *self.truth.pairs(rows))
        return Batch(*(torch.from_numpy(array).to(device) for array in arrays))


def epoch(lengths: Ints, contents: int, names: int, size: int, seed: int) -> list[Ints]:
    """Draw the batches of an epoch: each content once, each tag's text `names` times, similar lengths in a batch.

    `lengths`: of the `contents` contents, then of the tags' texts.
    """
    every = np.concatenate([np.arange(contents), *[np.arange(contents, len(lengths))] * names])
    made = [every[places] for places in batches(lengths[every], size, seed)]
    # A small batch has few negatives among its contents.
    return [rows for rows in made if len(rows) >= size // 4] or made


def shared(batch: Sequence[tuple[Tensor, Tensor, int]]) -> Tensor:
    """Return whether two texts share a tag, bool [n, k]: texts of the first batch by texts of all batches in a row.

    A batch is given as the rows and tags of its right pairs, and its number of texts.
    """
    tags = torch.cat([tags for _, tags, _ in batch])
    offsets = np.cumsum([0, *(count for _, _, count in batch)]).tolist()
    rows = torch.cat([rows + offset for (rows, _, _), offset in zip(batch, offsets, strict=False)])
    known, columns = torch.unique(tags, return_inverse=True)
    marks = torch.zeros(offsets[-1], len(known), device=tags.device)
    marks[rows, columns] = 1
    return marks[: batch[0][2]] @ marks.T > 0
