"""The files of a baseline's run. Label trees need another environment: `make baselines`."""

import json
from pathlib import Path

import numpy as np

from tagbus.models.baselines.base import BEST
from tagbus.models.baselines.compare import BASELINES, compare
from tagbus.models.data.corpus import open_corpus
from tests.models.baselines.titles import TEXTS, TITLES


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
