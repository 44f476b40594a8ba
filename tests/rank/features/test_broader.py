"""The feature table `broader`: parents, children and siblings among the candidates of a content."""

import numpy as np
import pytest

from tagbus.stream.rank.features.base import Tables
from tagbus.stream.rank.features.broader import Broader
from tests.rank.features.drawing import WIDTH, batch, column

NAN = float("nan")
TABLE = Broader()


def same(values: list[float]) -> object:
    return pytest.approx(values, nan_ok=True)


def test_evidence_for_parents_and_children_is_a_feature() -> None:
    """0 lies above 1 and 2; in the second content 0 and 2 have no relative that is a candidate."""
    given = batch(
        [[0, 1, 2], [2, 3]],
        parents=[(1, 0), (2, 0)],
        base={"votes": [0.5, 0.2, 0.3, 0.9, 0.1], "fused": [5, 2, 3, 9, 1]},
    )

    found = TABLE.of(given)

    assert column(TABLE, found, "broader_votes") == same([NAN, 0.5, 0.5, NAN, NAN])
    assert column(TABLE, found, "broader_fused") == same([NAN, 5, 5, NAN, NAN])
    assert column(TABLE, found, "narrower_votes") == same([0.3, NAN, NAN, NAN, NAN])
    assert column(TABLE, found, "narrower_fused") == same([3, NAN, NAN, NAN, NAN])


def test_siblings_are_those_with_a_parent_in_common_though_it_is_no_tag() -> None:
    facet, other = WIDTH + 5, WIDTH + 6
    given = batch(
        [[1, 2, 3, 4], [1, 4]],
        parents=[(1, facet), (2, facet), (3, facet), (4, other)],
        base={"votes": [0.1, 0.4, 0.2, 0.9, 0.8, 0.7], "fused": [1, 4, 2, 9, 8, 7]},
    )

    found = TABLE.of(given)

    assert column(TABLE, found, "siblings") == [2, 2, 2, 0, 0, 0]
    assert column(TABLE, found, "sibling_votes") == same([0.4, 0.2, 0.4, NAN, NAN, NAN])
    assert column(TABLE, found, "sibling_fused") == same([4, 2, 4, NAN, NAN, NAN])


def test_with_two_parents_the_best_relative_counts() -> None:
    given = batch(
        [[0, 1, 2, 3]],
        parents=[(2, 0), (2, 1), (3, 1)],
        base={"votes": [0.1, 0.6, 0.2, 0.3], "fused": [1, 6, 2, 3]},
    )

    found = TABLE.of(given)

    assert column(TABLE, found, "broader_votes")[2] == pytest.approx(0.6)
    assert column(TABLE, found, "sibling_votes")[2] == pytest.approx(0.3)
    assert column(TABLE, found, "siblings") == [0, 0, 1, 1]


def test_how_often_a_parent_was_right_with_the_tag_is_a_feature() -> None:
    tables = Tables(np.array([10, 4, 0]), np.array([1, 3]), np.array([3, 3]), 20)
    given = batch([[0, 1, 2, 7]], tables=tables, parents=[(1, 0), (2, 0), (7, 0)])

    assert column(TABLE, TABLE.of(given), "broader_given") == same([NAN, 0.75, 0, 0])


def test_a_tag_that_is_its_own_parent_or_in_a_circle_is_no_trouble() -> None:
    given = batch([[0, 1]], parents=[(0, 0), (0, 1), (1, 0)], base={"votes": [0.4, 0.6], "fused": [1, 2]})

    assert column(TABLE, TABLE.of(given), "broader_votes")[1] == pytest.approx(0.4)


def test_without_a_hierarchy_or_candidates_features_are_empty() -> None:
    found = TABLE.of(batch([[0, 1]]))
    assert np.isnan(found[:, [name != "siblings" for name in TABLE.columns]]).all()
    assert TABLE.of(batch([[], []])).shape == (0, len(TABLE.columns))
