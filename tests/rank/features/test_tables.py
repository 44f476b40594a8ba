"""Named feature tables of a ranker: their columns follow those that all rankers read."""

import numpy as np

from tagbus.stream.rank.features import base
from tagbus.stream.rank.features.broader import Broader
from tagbus.stream.rank.features.named import Named
from tagbus.stream.rank.features.tables import Statistics, TableName, arrays, columns, features, load
from tests.rank.features.drawing import batch

NONE = np.zeros(0, np.int64)
COUNTED = base.Tables(np.array([5, 1]), NONE, NONE, 10)
NAMED = Named(np.array([4, 2]), np.array([1, 2]))


def test_a_ranker_that_names_none_reads_what_it_always_read() -> None:
    given = batch([[0, 1], [1]])

    found = features(given.pool, given.drawn, given.facts, Statistics(COUNTED), ())

    assert np.array_equal(found, base.table(given.pool, given.drawn, given.facts, COUNTED, ()), equal_nan=True)
    assert columns(()) == base.columns(())


def test_those_that_it_names_come_in_that_order() -> None:
    given = batch([[0, 1], [1]])

    found = features(given.pool, given.drawn, given.facts, Statistics(COUNTED, [NAMED, Broader()]), ())

    names = columns((), [TableName.NAMED, TableName.BROADER])
    assert names == (*base.columns(()), *Named.columns, *Broader.columns)
    assert found.shape == (3, len(names))
    assert found.dtype == np.float32
    assert np.array_equal(found[:, names.index("named")], np.log1p([4, 2, 2]).astype(np.float32))


def test_every_table_comes_back_from_its_arrays() -> None:
    (named, broader) = load([TableName.NAMED, TableName.BROADER], arrays([NAMED, Broader()]), 2)

    assert named.arrays()["right"].tolist() == [1, 2]
    assert isinstance(broader, Broader)
