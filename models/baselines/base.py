"""The interface of a baseline, its training data and its predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tagbus.models.data.truth import Truth

# Tags kept per content.
BEST: Final = 60

# Tag numbers int64 [n, best], best first, -1 as padding, and their scores float64 [n, best].
Found: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Titles:
    """Training contents: their texts and right tags, as numbers below `tags`."""

    texts: Sequence[str]
    truth: Truth
    tags: int


class Baseline(Protocol):
    """A tagger that is trained once, for a fixed set of tags."""

    def train(self, titles: Titles) -> None:
        """Train on these contents."""
        ...

    def predict(self, texts: Sequence[str], best: int) -> Found:
        """Tag numbers int64 [n, best], best first, padded with -1, and their scores float64 [n, best]."""
        ...


def empty(contents: int, best: int) -> Found:
    """All padding."""
    return np.full((contents, best), -1, np.int64), np.zeros((contents, best))
