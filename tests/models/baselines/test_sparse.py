"""Sparse matrices: right tags, the best of each row, and the file format of the label trees."""

from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from tagbus.models.baselines.sparse import from_rows, matrix_of, write_xmc
from tests.models.baselines.titles import TITLES


def test_the_best_of_each_row_come_first_and_the_rest_is_empty() -> None:
    indices, scores = from_rows(csr_array(np.array([[0.0, 0.2, 0.7], [0.0, 0.0, 0.0]])), 4)

    assert indices.tolist() == [[2, 1, -1, -1], [-1, -1, -1, -1]]
    assert scores.tolist() == [[0.7, 0.2, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]


def test_right_tags_as_a_matrix() -> None:
    assert matrix_of(TITLES.truth, 5).toarray()[1].tolist() == [1, 1, 0, 0, 0]


def test_trees_are_given_the_form_of_the_repository_without_contents_that_have_no_word(tmp_path: Path) -> None:
    words = csr_array(np.array([[0.5, 0.0], [0.25, 1.0], [0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))

    write_xmc(tmp_path / "train.txt", words, TITLES)

    lines = (tmp_path / "train.txt").read_text().splitlines()
    assert lines == ["4 2 5", "0 0:0.5", "0,1 0:0.25 1:1", "2,3 1:1", "4 0:1"]
