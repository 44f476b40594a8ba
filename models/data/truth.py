"""Ground truth in CSR form: which tags are right for which content."""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.contract.events import Exemplar
from tagbus.stream.errors import UserError, shorten


@dataclass(frozen=True, slots=True)
class Truth:
    """Right tags of n contents: content i has tags[starts[i] : starts[i + 1]], int32 tag numbers, ascending."""

    starts: NDArray[np.int64]
    tags: NDArray[np.int32]

    @classmethod
    def of(cls, rows: Iterable[Iterable[int]]) -> "Truth":
        """Build from the tag numbers of each content."""
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
        """Every right pair of these contents: index into `contents` and tag number, int64 [m] each."""
        lengths = self.starts[contents + 1] - self.starts[contents]
        rows = np.repeat(np.arange(len(contents)), lengths)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return rows, self.tags[np.repeat(self.starts[contents], lengths) + within].astype(np.int64)

    def lists(self) -> list[NDArray[np.int64]]:
        """The tags of each content, in the form that quality.py takes."""
        return [self[content].astype(np.int64) for content in range(len(self))]


def numbers_of(item: Exemplar, numbers: Mapping[str, int]) -> list[int]:
    """The tag numbers of a content. Raises UserError for a tag that the taxonomy does not have."""
    try:
        return [numbers[tag] for tag in item.accepted]
    except KeyError as error:
        raise UserError(f"content {shorten(item.id)}: {shorten(error.args[0])} is no tag of the corpus") from None
