"""Votes of the nearest titles."""

import numpy as np
import pytest

from tagbus.models.baselines.tfidf import Neighbours
from tests.models.baselines.titles import TITLES


def test_neighbours_find_the_tags_of_like_titles_best_first() -> None:
    baseline = Neighbours(near=2, tau=0.1)
    baseline.train(TITLES)

    indices, scores = baseline.predict(["a red fish", "the blue bird"], 3)

    assert indices[:, 0].tolist() == [0, 2]
    assert set(indices[0].tolist()) == {0, 1, -1}
    assert scores[:, 0] == pytest.approx(1)
    assert (np.diff(scores) <= 0).all()


def test_a_text_without_a_known_word_takes_the_tags_of_any_titles() -> None:
    baseline = Neighbours()
    baseline.train(TITLES)

    indices, _ = baseline.predict(["zebra"], 10)

    assert set(indices[0].tolist()) == {-1, 0, 1, 2, 3, 4}
