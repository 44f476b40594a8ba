"""Bootstrap intervals against resampling content by content; bands of tags by hand."""

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagbus.stream.intervals import bands, bootstrap, of_mean, recall_by_band
from tagbus.stream.quality import Ints, Parts, Ranked, measure, parts, propensities

TAGS = 20
COUNTS = np.array([0, 9, 10, 99, 100, *range(5, 20)], dtype=np.int64)
PROPENSITY = propensities(COUNTS, 1000)


def evaluation(contents: int, seed: int) -> tuple[Ranked, list[Ints]]:
    """Random tags in random order, 1 to 4 of them right."""
    random = np.random.default_rng(seed)
    indices = np.array([random.permutation(TAGS)[:10] for _ in range(contents)], dtype=np.int64)
    scores = -np.sort(-random.random((contents, 10)), axis=1)
    right = [np.sort(random.permutation(TAGS)[: random.integers(1, 5)]).astype(np.int64) for _ in range(contents)]
    return Ranked(indices, scores), right


def made(contents: int, seed: int) -> Parts:
    return parts(*evaluation(contents, seed), PROPENSITY)


@given(st.integers(1, 30), st.integers(0, 100))
def test_figures_of_a_sample_equal_those_of_its_contents_written_out_one_by_one(contents: int, seed: int) -> None:
    found, right = evaluation(contents, seed)
    rows = np.random.default_rng(seed).integers(contents, size=contents)
    times = np.bincount(rows, minlength=contents).astype(np.float64)

    drawn = parts(found, right, PROPENSITY).figures(times[None])[0]

    sample = Ranked(found.indices[rows], found.scores[rows])
    assert drawn == pytest.approx(astuple(measure(sample, [right[row] for row in rows], PROPENSITY)))


def test_the_same_seed_gives_the_same_intervals_and_another_does_not() -> None:
    some = made(50, 0)

    assert bootstrap(some) == bootstrap(some)
    assert bootstrap(some) != bootstrap(some, seed=1)


def test_intervals_hold_the_figure_and_are_as_wide_as_the_normal_approximation_says() -> None:
    found, right = evaluation(2000, 1)
    first = [found.indices[row, 0] in right[row] for row in range(2000)]

    interval = bootstrap(parts(found, right, PROPENSITY))

    figure = measure(found, right, PROPENSITY).p_at_1
    assert interval.low.p_at_1 < figure < interval.high.p_at_1
    width = 2 * 1.96 * 100 * float(np.std(first)) / 2000**0.5
    assert interval.high.p_at_1 - interval.low.p_at_1 == pytest.approx(width, rel=0.15)


def test_the_interval_of_a_mean_is_as_wide_as_the_normal_approximation_says_in_each_column() -> None:
    values = np.random.default_rng(2).normal((1.0, -2.0), (1.0, 3.0), (2000, 2))

    low, high = of_mean(values)

    assert (low < values.mean(axis=0)).all()
    assert (values.mean(axis=0) < high).all()
    assert high - low == pytest.approx(2 * 1.96 * values.std(axis=0) / 2000**0.5, rel=0.15)
    # A single column has the same interval: the same contents are drawn.
    assert of_mean(values[:, 1]) == pytest.approx((low[1], high[1]))


def test_contents_that_are_all_alike_leave_no_doubt() -> None:
    found = Ranked(np.tile(np.arange(10), (30, 1)), np.full((30, 10), 0.5))

    interval = bootstrap(parts(found, [np.array([0, 3])] * 30, PROPENSITY))

    assert astuple(interval.low) == pytest.approx(astuple(interval.high))


def test_every_tag_is_in_one_band_by_its_training_contents() -> None:
    found = bands(np.array([0, 9, 10, 99, 100, 5000]))

    assert {name: band.nonzero()[0].tolist() for name, band in found.items()} == {
        "head": [4, 5],
        "torso": [2, 3],
        "tail": [0, 1],
    }


def test_recall_of_a_band_is_over_the_contents_that_have_one_of_its_tags() -> None:
    # Tag 0 is head, 1 torso, 2 and 3 tail. The first content finds its head tag and one of two of the tail.
    counts = np.array([100, 10, 9, 0])
    found = Ranked(np.array([[0, 2], [1, 3]]), np.full((2, 2), 0.5))
    right = [np.array([0, 2, 3]), np.array([0])]

    assert recall_by_band(found, right, counts) == {"head": 50, "torso": None, "tail": 50}
    assert recall_by_band(found, right, counts, k=1) == {"head": 50, "torso": None, "tail": 0}
