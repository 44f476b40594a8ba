"""The named feature tables: optional inputs of a ranker beside the features of base.py.

ranker.json names those that a ranker was trained with, and tables.npz has their counts. A ranker that names none reads
none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from tagbus.stream.rank.candidates import Drawn, Facts
from tagbus.stream.rank.features import base
from tagbus.stream.rank.features.base import Tables
from tagbus.stream.rank.features.broader import Broader
from tagbus.stream.rank.features.named import Named
from tagbus.stream.rank.features.table import Batch, Counts, FeatureTable
from tagbus.stream.rank.features.terms import Terms
from tagbus.stream.recall.pool import Floats, Pool


class TableName(StrEnum):
    """The names of all tables."""

    BROADER = "broader"
    NAMED = "named"
    TERMS = "terms"


KINDS: Final[Mapping[TableName, type[Broader] | type[Named] | type[Terms]]] = {
    TableName.BROADER: Broader,
    TableName.NAMED: Named,
    TableName.TERMS: Terms,
}


@dataclass(frozen=True, slots=True)
class Statistics:
    """The statistics behind a ranker's features: the counts of tags, and its named tables."""

    tables: Tables
    named: Sequence[FeatureTable] = ()


def columns(lists: Sequence[str], names: Sequence[TableName] = ()) -> tuple[str, ...]:
    """The column names, for recallers and named tables in this order."""
    return (*base.columns(lists), *(column for name in names for column in KINDS[name].columns))


def features(pool: Pool, drawn: Drawn, facts: Facts, statistics: Statistics, lists: Sequence[str]) -> Floats:
    """The features of the drawn candidates: float32 [m, f], with the columns of `columns`."""
    first = base.table(pool, drawn, facts, statistics.tables, lists)
    if not statistics.named:
        return first
    found = dict(zip(base.columns(lists), first.T, strict=True))
    batch = Batch(pool, drawn, facts, statistics.tables, found)
    return np.concatenate([first, *(table.of(batch) for table in statistics.named)], axis=1)


def arrays(named: Sequence[FeatureTable]) -> dict[str, Counts]:
    """The arrays of the named tables in tables.npz: `table.array`."""
    return {f"{table.name}.{name}": array for table in named for name, array in table.arrays().items()}


def load(names: Sequence[TableName], held: Mapping[str, Counts], tags: int) -> list[FeatureTable]:
    """The inverse of `arrays`, over this many known tags. Raises ValueError or KeyError for other arrays."""
    return [KINDS[name].load({each: held[f"{name}.{each}"] for each in KINDS[name].held}, tags) for name in names]
