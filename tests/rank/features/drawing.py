"""Hand-made candidates: the input of a feature table."""

from collections.abc import Mapping, Sequence

import numpy as np

from tagbus.stream.rank.candidates import Drawn, Facts
from tagbus.stream.rank.features.base import Tables
from tagbus.stream.rank.features.table import Batch, FeatureTable
from tagbus.stream.recall.pool import Ballots, Floats, Pool
from tagbus.stream.recall.votes import count_votes

WIDTH = 9


def batch(
    candidates: Sequence[Sequence[int]],
    texts: Sequence[str] | None = None,
    tables: Tables | None = None,
    parents: Sequence[tuple[int, int]] = (),
    base: Mapping[str, Sequence[float]] | None = None,
) -> Batch:
    """Contents with these candidates, each ascending. `parents`: pairs of a tag and its parent."""
    none = np.zeros(0, np.int64)
    ballots = Ballots(none, np.zeros(0, np.float32), np.zeros(0, np.bool_), none, none)
    pool = Pool(texts or ["text"] * len(candidates), WIDTH, {}, ballots)
    rows = np.repeat(np.arange(len(candidates)), [len(one) for one in candidates])
    tags = np.array([tag for one in candidates for tag in one], np.int64)
    child, parent = (np.array([pair[side] for pair in parents], np.int64) for side in (0, 1))
    facts = Facts(np.arange(WIDTH), np.full(WIDTH, 5), child, parent)
    given = base or {name: [0.0] * len(tags) for name in ("votes", "fused")}
    return Batch(
        pool,
        Drawn(rows, tags, count_votes(pool)),
        facts,
        tables or Tables(none, none, none, 0),
        {name: np.array(values, np.float32) for name, values in given.items()},
    )


def column(table: FeatureTable, found: Floats, name: str) -> list[float]:
    """One feature of all candidates."""
    assert found.dtype == np.float32
    assert found.shape[1] == len(table.columns)
    return [float(value) for value in found[:, list(table.columns).index(name)]]
