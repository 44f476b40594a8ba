"""`make quality`, in short: a data set of some hundred titles, nothing trained and light."""

import json
from pathlib import Path

import pytest
import typer

from tagbus.models.evaluate import history, quality, recipe
from tagbus.models.evaluate.history import FIGURES, History, Run
from tagbus.models.evaluate.raw import Raw
from tagbus.stream.errors import UserError

COMMIT = "0123456789abcdef"


@pytest.fixture(scope="module")
def kept(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run over the first 120 titles."""
    place = tmp_path_factory.mktemp("quality")
    quality.command([str(folder)], "untrained,light", titles=120, keep=place / "keep", to=place / "history.json")
    return place


class TestRun:
    def test_both_rows_stand_under_the_commit_with_their_intervals(self, kept: Path, folder: Path) -> None:
        (run,) = history.read(kept / "history.json").runs
        here = quality.checkout()
        assert (run.commit, run.changed) == (here.commit, here.changed)
        assert (run.data, run.exemplars, run.contents) == (f"{folder.resolve().name}-120", 120, 30)
        assert list(run.rows) == ["untrained", "light"]
        for row, figures in run.rows.items():
            for name in FIGURES:
                low, high = run.intervals[row][name]
                assert low <= high
                # Resampled bins are never as even as they were: the calibration error of a sample is above its own.
                assert name == "ece" or low <= figures[name] <= high

    def test_the_figures_can_be_computed_again_from_the_raw_rows(self, kept: Path, folder: Path) -> None:
        (run,) = history.read(kept / "history.json").runs
        for row, figures in run.rows.items():
            again = Raw.load(kept / "raw" / "quality" / f"{folder.resolve().name}-120" / f"{row}.npz").figures()
            assert {name: again[name] for name in FIGURES} == {name: figures[name] for name in FIGURES}

    def test_what_was_trained_is_not_trained_again(self, kept: Path, folder: Path) -> None:
        """Given a finished run, when it is repeated, nothing is trained and the figures stay."""
        made = {path: path.stat().st_mtime_ns for path in (kept / "keep").rglob("*.onnx")}
        before = history.read(kept / "history.json")
        assert {path.name for path in made} == {"model.onnx", "heads.onnx", "ranker.onnx"}

        quality.command([str(folder)], "untrained,light", titles=120, keep=kept / "keep", to=kept / "history.json")

        assert {path: path.stat().st_mtime_ns for path in (kept / "keep").rglob("*.onnx")} == made
        (run,), (again,) = before.runs, history.read(kept / "history.json").runs
        assert [again.rows[row]["ndcg_at_5"] for row in again.rows] == [run.rows[row]["ndcg_at_5"] for row in run.rows]

    def test_a_loss_ends_with_code_1_and_is_named(
        self, kept: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (run,) = history.read(kept / "history.json").runs
        better = run.model_copy(
            update={
                "commit": COMMIT,
                "rows": {"untrained": dict.fromkeys(run.rows["untrained"], 99.0)},
                "intervals": {"untrained": dict.fromkeys(FIGURES, (98.0, 100.0))},
            }
        )
        history.write(tmp_path / "history.json", History(runs=(better,)))
        with pytest.raises(typer.Exit) as end:
            quality.command([str(folder)], "untrained", titles=120, keep=kept / "keep", to=tmp_path / "history.json")
        assert end.value.exit_code == 1
        assert f"worse: {run.data}, untrained: p_at_1" in capsys.readouterr().err
        assert len(history.read(tmp_path / "history.json").runs) == 2


def test_a_row_that_is_none_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="--rows: 'best' is wrong, expected some of untrained, light, full"):
        quality.command([str(folder)], "best")


def test_a_file_that_is_no_history_is_refused(tmp_path: Path) -> None:
    (tmp_path / "h.json").write_text("[]")
    with pytest.raises(UserError, match="is no history of `make quality`"):
        history.read(tmp_path / "h.json")


def run_of(commit: str, data: str = "a", exemplars: int = 10, **figures: float) -> Run:
    row = dict.fromkeys(FIGURES, 50.0) | {"ece": 0.01} | figures
    return Run(
        commit=commit,
        changed=False,
        date="2026-11-28",
        data=data,
        tags=5,
        exemplars=exemplars,
        contents=5,
        rows={"full": row},
        intervals={"full": {name: (value - 1, value + 1) for name, value in row.items()}},
    )


class TestHistory:
    def test_a_run_takes_the_place_of_the_one_of_its_commit_on_the_same_data(self) -> None:
        found = History()
        for run in (run_of("1"), run_of("2"), run_of("1", data="b"), run_of("1", p_at_1=60.0)):
            found = history.added(found, run)
        assert [(run.commit, run.data, run.rows["full"]["p_at_1"]) for run in found.runs] == [
            ("2", "a", 50.0),
            ("1", "b", 50.0),
            ("1", "a", 60.0),
        ]

    def test_it_is_compared_with_the_last_run_on_data_of_the_same_size(self) -> None:
        first, other, larger, now = run_of("1"), run_of("2", data="b"), run_of("3", exemplars=20), run_of("4")
        found = History(runs=(first, other, larger, now))
        assert history.before(found, now, "full") == first
        assert history.before(found, now, "light") is None

    def test_worse_is_what_lies_outside_of_the_interval_before(self) -> None:
        first, now = run_of("1" * 12), run_of("2", p_at_1=48.0, p_at_5=49.5, r_at_10=70.0, ece=1.5)
        assert list(history.worse(History(runs=(first, now)), now)) == [
            "a, full: p_at_1 48, outside of 49 to 51 at commit 11111111",
            "a, full: ece 1.5, outside of -0.99 to 1.01 at commit 11111111",
        ]

    def test_the_table_says_what_changed(self) -> None:
        first, now = run_of("1"), run_of("2", p_at_1=48.0)
        found = History(runs=(first, now))
        assert [cells[:4] for cells in history.lines(found, [first, now])] == [
            ["a", "full", "50.00", "50.00"],
            ["a", "full", "48.00 (-2.00)", "50.00"],
        ]

    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        found = History(method="m", runs=(run_of("1"),))
        history.write(tmp_path / "new" / "h.json", found)
        assert history.read(tmp_path / "new" / "h.json") == found
        json.loads((tmp_path / "new" / "h.json").read_text())


def test_every_row_of_the_recipe_is_a_row_of_the_table() -> None:
    """The models of a row are trained into the folders that its settings name."""
    experiment = recipe.Experiment("corpus", 1000, Path("models"))
    for row in recipe.ROWS:
        (settings,) = [one.settings for one in quality.OURS if one.name == row]
        folders = {value for value in settings.values() if "{models}" in value}
        made = {f"{{models}}/{step.made.parent.relative_to('models')}" for step in recipe.steps(row, experiment)}
        assert folders <= made
