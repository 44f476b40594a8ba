"""Eight-bit products: near the exact ones, and always the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.models.export.dots import graph
from tagbus.stream.dots import GRAPH, EightBitRows, Floats


def vectors(seed: int, count: int, length: int, spread: float) -> Floats:
    """Vectors of lengths that differ up to e to the power of `spread`."""
    random = np.random.default_rng(seed)
    sizes = np.exp(random.uniform(-spread, spread, (count, 1)))
    return np.asarray(sizes * random.standard_normal((count, length)) / length**0.5, np.float32)


@given(st.integers(0, 2**32 - 1), st.sampled_from((2, 32, 384)), st.floats(0, 3))
@settings(max_examples=40, deadline=None)
def test_rounding_changes_a_product_by_less_than_half_the_slack(seed: int, length: int, spread: float) -> None:
    rows, queries = vectors(seed, 500, length, spread), vectors(seed + 1, 20, length, spread)

    products, slack = EightBitRows(rows).dots(queries)

    assert (products.dtype, products.shape, slack.shape) == (np.float32, (20, 500), (20, 1))
    assert (abs(products - queries.astype(np.float64) @ rows.T) <= slack / 2).all()


def test_the_slack_of_unit_vectors_of_384_numbers_is_a_hundredth() -> None:
    some = vectors(0, 300, 384, 0)
    some /= np.linalg.norm(some, axis=1, keepdims=True)

    _, slack = EightBitRows(some).dots(some)

    assert slack.max() < 0.012


def test_the_largest_numbers_do_not_saturate() -> None:
    """Without VNNI two products are added in 16 bits."""
    products, _ = EightBitRows(np.ones((3, 512), np.float32)).dots(np.array([[1.0] * 512, [-1.0] * 512], np.float32))

    assert products == pytest.approx(np.array([[512.0] * 3, [-512.0] * 3]))


def test_a_product_does_not_depend_on_the_other_rows_and_queries() -> None:
    rows, queries = vectors(1, 100, 64, 1), vectors(2, 10, 64, 1)
    products, _ = EightBitRows(rows).dots(queries)

    alone, _ = EightBitRows(rows[7:8]).dots(queries[3:4])

    assert alone == products[3:4, 7:8]


def test_zeros_and_no_rows_are_no_special_case() -> None:
    products, slack = EightBitRows(np.zeros((2, 4), np.float32)).dots(np.zeros((1, 4), np.float32))
    assert (products == 0).all()
    assert np.isfinite(slack).all()
    assert EightBitRows(np.zeros((0, 4), np.float32)).dots(np.ones((2, 4), np.float32))[0].shape == (2, 0)


def test_the_graph_is_what_the_export_writes() -> None:
    assert GRAPH.read_bytes() == graph()
