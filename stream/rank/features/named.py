"""Feature table `named`: what it is worth that the name of a tag stands in a content.

"history" stands in many titles that are about something else, and "beekeeping" in few. The component `literal` says
whether a name stands there; this says how far to believe it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np

from tagbus.stream.rank.features.table import Batch, Counts
from tagbus.stream.recall.pool import Floats, Ints

# Contents of the average share that each share begins with.
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
        right for that name it; NaN for a tag that was not counted."""
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
            raise ValueError(f"{len(naming)} tags that are named and {len(right)} that are right then, of {tags}")
        return cls(naming, right)


def _share(part: Ints, whole: Ints | Floats, parts: Ints, wholes: Ints) -> Floats:
    """part / whole, shrunk to the average of all tags."""
    average = parts.sum() / max(int(wholes.sum()), 1)
    return np.asarray((part + SHRUNK * average) / (whole + SHRUNK), np.float32)
