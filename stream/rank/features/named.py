"""Feature table `named`: how much it means that a tag's name occurs in a content.

"history" occurs in many titles about something else, "beekeeping" in few. The component `literal` detects a name; this
table says how far to trust it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np

from tagbus.stream.rank.features.table import Batch, Counts
from tagbus.stream.recall.pool import Floats, Ints

# The prior: the number of contents at the average share that each share starts with.
SHRUNK: Final = 5


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """Counts over the training contents for each of t known tags: contents whose text names it, int64 [t], and those of
    them for which it was right, int64 [t]."""

    naming: Ints
    right: Ints

    name: ClassVar[str] = "named"
    columns: ClassVar[Sequence[str]] = ("named", "named_right", "right_named")
    held: ClassVar[Sequence[str]] = ("naming", "right")

    def of(self, batch: Batch) -> Floats:
        """How often it is named (logarithm), the share of these that it is right for, and the share of those it is
        right for that name it; NaN for an uncounted tag."""
        tags, tables = batch.drawn.tags, batch.tables
        found = np.full((len(tags), 3), np.nan, np.float32)
        known = tags < len(self.naming)
        naming, right = self.naming[tags[known]], self.right[tags[known]]
        found[known, 0] = np.log1p(naming)
        found[known, 1] = _share(right, naming, self.right, self.naming)
        found[known, 2] = _share(right, tables.count(tags[known]), self.right, tables.counts)
        return found

    def arrays(self) -> Mapping[str, Counts]:
        """See `FeatureTable`."""
        return {"naming": self.naming, "right": self.right}

    @classmethod
    def load(cls, arrays: Mapping[str, Counts], tags: int) -> Self:
        """See `FeatureTable`."""
        naming, right = (arrays[name].astype(np.int64) for name in cls.held)
        if not naming.shape == right.shape == (tags,):
            raise ValueError(f"{len(naming)} counts of named tags and {len(right)} of right ones, expected {tags}")
        return cls(naming, right)


def _share(part: Ints, whole: Ints | Floats, parts: Ints, wholes: Ints) -> Floats:
    """part / whole, shrunk to the average of all tags."""
    average = parts.sum() / max(int(wholes.sum()), 1)
    return np.asarray((part + SHRUNK * average) / (whole + SHRUNK), np.float32)
