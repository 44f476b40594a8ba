"""The feature table `named`: how much it means that a tag's name occurs in a content."""

import numpy as np
import pytest

from tagbus.stream.rank.features.base import Tables
from tagbus.stream.rank.features.named import SHRUNK, Named
from tests.rank.features.drawing import batch, column

TABLE = Named(naming=np.array([100, 2, 0]), right=np.array([10, 2, 0]))
COUNTED = Tables(np.array([40, 4, 1]), np.zeros(0, np.int64), np.zeros(0, np.int64), 200)


def test_shares_are_shrunk_to_the_average_of_all_tags() -> None:
    found = TABLE.of(batch([[0, 1, 2]], tables=COUNTED))

    assert column(TABLE, found, "named") == pytest.approx(np.log1p([100, 2, 0]))
    average = 12 / 102
    right = [(10 + SHRUNK * average) / (100 + SHRUNK), (2 + SHRUNK * average) / (2 + SHRUNK), average]
    assert column(TABLE, found, "named_right") == pytest.approx(right)
    average = 12 / 45
    naming = [(10 + SHRUNK * average) / (40 + SHRUNK), (2 + SHRUNK * average) / (4 + SHRUNK)]
    assert column(TABLE, found, "right_named")[:2] == pytest.approx(naming)


def test_of_a_tag_that_was_not_counted_nothing_is_known() -> None:
    found = TABLE.of(batch([[1, 3]], tables=COUNTED))

    assert np.isnan(found[1]).all()
    assert not np.isnan(found[0]).any()


def test_counts_of_other_tags_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 4"):
        Named.load(TABLE.arrays(), 4)
    assert np.array_equal(Named.load(TABLE.arrays(), 3).naming, TABLE.naming)
