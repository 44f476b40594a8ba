"""The interface of a named feature table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.rank.candidates import Drawn, Facts
from tagbus.stream.rank.features.base import Tables
from tagbus.stream.recall.pool import Floats, Pool

Counts = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Batch:
    """The input of feature tables for a batch; `base`: the columns of base.py by name."""

    pool: Pool
    drawn: Drawn
    facts: Facts
    tables: Tables
    base: Mapping[str, Floats]


class FeatureTable(Protocol):
    """Computes more features of candidates.

    `name` is recorded in ranker.json and prefixes its arrays in tables.npz, whose names are `held`. An unknown value,
    as for a tag that training did not count, is NaN.
    """

    name: ClassVar[str]
    columns: ClassVar[Sequence[str]]
    held: ClassVar[Sequence[str]]

    def of(self, batch: Batch) -> Floats:
        """Its features: float32 [m, columns] for m candidates."""
        ...

    def arrays(self) -> Mapping[str, Counts]:
        """Its counts, by the names in `held`."""
        ...

    @classmethod
    def load(cls, arrays: Mapping[str, Counts], tags: int) -> Self:
        """The inverse of `arrays`, over this many known tags. Raises ValueError if they do not fit each other."""
        ...
