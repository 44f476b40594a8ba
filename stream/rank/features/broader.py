"""Feature table `broader`: a candidate among its relatives in the hierarchy of tags.

A relative is a candidate for the same content: a parent, a child, or a sibling, which has a parent in common. That
parent need not be a candidate, nor a tag. Annotators tend to choose either the narrow tag or the broad one, and one of
several siblings: evidence for a relative is evidence for or against the candidate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.rank.features.base import among, links
from tagbus.stream.rank.features.table import Batch, Counts
from tagbus.stream.recall.pool import Floats, Ints

# The evidence for a relative, by its column in base.py.
VALUES: Final = ("votes", "fused")
RELATIVES: Final = ("broader", "narrower", "sibling")


@dataclass(frozen=True, slots=True)
class Broader:
    """Votes and first guess of the best relative of each kind, NaN without one; the number of siblings, the most under
    one parent; and how often a parent was right where the tag was, NaN for a tag without parents."""

    name: ClassVar[str] = "broader"
    columns: ClassVar[Sequence[str]] = (
        *(f"{relative}_{value}" for relative in RELATIVES for value in VALUES),
        "siblings",
        "broader_given",
    )
    held: ClassVar[Sequence[str]] = ()

    def of(self, batch: Batch) -> Floats:
        """See `FeatureTable`."""
        drawn, width = batch.drawn, batch.pool.width
        count = len(drawn.tags)
        candidate, parent = links(drawn, batch.facts)
        place, there = among(drawn.rows * width + drawn.tags, drawn.rows[candidate], parent, width)
        values = [batch.base[name] for name in VALUES]
        groups = drawn.rows[candidate] * (int(parent.max(initial=0)) + 1) + parent
        below = drawn.tags[candidate]
        given = batch.tables.with_(below, parent) / np.maximum(batch.tables.count(below), np.float32(1))
        found = [
            *(_best(count, candidate[there], value[place]) for value in values),
            *(_best(count, place, value[candidate[there]]) for value in values),
            *(_best(count, candidate, _best_other(groups, value[candidate])) for value in values),
            np.nan_to_num(_best(count, candidate, _sizes(groups) - 1)),
            _best(count, candidate, given),
        ]
        return np.stack(found, axis=1).astype(np.float32, copy=False)

    def arrays(self) -> Mapping[str, Counts]:
        """See `FeatureTable`: the taxonomy is memory's, as it is now."""
        return {}

    @classmethod
    def load(cls, arrays: Mapping[str, Counts], tags: int) -> Self:  # noqa: ARG003
        """See `FeatureTable`."""
        return cls()


def _best(count: int, places: Ints, values: NDArray[np.floating]) -> Floats:
    """The largest value at each of `count` positions, float32; NaN where there is none."""
    best = np.full(count, np.nan, np.float32)
    np.fmax.at(best, places, values.astype(np.float32))
    return best


def _best_other(groups: Ints, values: Floats) -> Floats:
    """For each, the largest value of the others in its group; NaN for a singleton."""
    order = np.lexsort((-values, groups))
    groups, values = groups[order], values[order]
    first = np.searchsorted(groups, groups)
    # The best one's other is the second.
    other = np.where(first == np.arange(len(groups)), first + 1, first)
    there = np.append(groups, -1)[other] == groups
    found = np.empty(len(groups), np.float32)
    found[order] = np.where(there, np.append(values, np.nan)[other], np.nan)
    return found


def _sizes(groups: Ints) -> Floats:
    """The size of each one's group."""
    _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return np.asarray(sizes[place], np.float32)
