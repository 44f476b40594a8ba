"""The baselines' own parts: what is written for the trees, votes of neighbours, and what is kept of a run.

The trees themselves are of another environment: `make baselines`.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from tagbus.models.baselines.classical import (
    BASELINES,
    BEST,
    Neighbours,
    Titles,
    compare,
    from_rows,
    matrix_of,
    write_xmc,
)
from tagbus.models.data.corpus import open_corpus
from tagbus.models.data.truth import Truth

TEXTS = ("red fish", "red fish swims", "blue bird", "blue bird flies", "old stone")
TITLES = Titles(TEXTS, Truth.of([[0], [0, 1], [2], [2, 3], [4]]), 5)


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


def test_a_run_keeps_what_was_found_for_validation_and_test(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "labels.tsv").write_text("".join(f"{number}\turi\tname {number}\n" for number in range(5)))
    lines = [f"{text}\t{','.join(map(str, TITLES.truth[row]))}\n" for row, text in enumerate(TEXTS)]
    for split in ("train", "val", "test"):
        (folder / f"{split}.tsv").write_text("".join(lines))

    run = compare("tfidf-neighbours", open_corpus(str(folder)), tmp_path / "out", "the command")

    assert json.loads((tmp_path / "out" / "run.json").read_text())["command"] == "the command"
    assert run.contents_per_second > 0
    for split in ("val", "test"):
        kept = np.load(tmp_path / "out" / f"{split}.npz", allow_pickle=False)
        assert kept["indices"].shape == kept["scores"].shape == (5, BEST)
        assert kept["indices"][0, 0] == 0


def test_every_baseline_has_a_row() -> None:
    from tagbus.models.evaluate.rows import BASELINES as ROWS

    assert {row.name for row in ROWS} == set(BASELINES)
