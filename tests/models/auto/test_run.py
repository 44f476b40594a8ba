"""`tagbus train auto` on a small cut of the examples: a release, also where it was interrupted."""

import json
import shutil
from pathlib import Path

import pytest

from tagbus.models.auto.command import command
from tagbus.models.auto.run import REPORT, Report
from tagbus.stream.app import assemble, components
from tagbus.stream.app.places import folders
from tagbus.stream.config import load
from tagbus.stream.encoder.release import load_release
from tagbus.stream.errors import UserError
from tagbus.stream.rank import trees
from tests.models.auto.conftest import MINUTES, NAME, Made, few


@pytest.fixture
def worker(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of a worker that may take the release."""
    monkeypatch.setenv("TAGBUS_RELEASES__FOLDER", str(made.release.parent))
    monkeypatch.setenv("TAGBUS_COMPONENTS__LITERAL__ENABLED", "true")


def report_of(made: Made) -> Report:
    return Report.model_validate_json((made.release / REPORT).read_bytes())


def test_what_was_finished_before_the_interruption_is_kept(made: Made) -> None:
    assert set(made.before) == {
        "heads/heads.onnx",
        *(f"folds/fold-{fold}/{file}" for fold in (0, 1) for file in ("heads/heads.onnx", "candidates.npz")),
    }
    assert made.after == made.before


def test_an_interrupted_run_ends_with_the_release_of_one_that_was_not(made: Made, small: Path, tmp_path: Path) -> None:
    """Given its corpus and plan alone, when another run begins with them, then all its models are the same."""
    (tmp_path / made.work.name).mkdir()
    for name in ("plan.json", "corpus", "held"):
        kept = made.work / name
        (shutil.copytree if kept.is_dir() else shutil.copyfile)(kept, tmp_path / made.work.name / name)
    with few():
        command(str(small), tmp_path / NAME, MINUTES)
    assert report_of(Made(tmp_path / NAME, {}, {})) == report_of(made)
    for name in trees_of(made.release):
        assert (tmp_path / NAME / name).read_bytes() == (made.release / name).read_bytes(), name


def trees_of(release: Path) -> list[str]:
    return [
        str(path.relative_to(release))
        for path in release.rglob("*")
        if path.suffix in {".onnx", ".json"} and path.name != REPORT
    ]


@pytest.mark.usefixtures("worker")
async def test_a_worker_opens_it_with_the_parts_that_were_taken(made: Made) -> None:
    assert load_release(made.release).name == NAME
    parts = report_of(made).selection.parts
    assert {path.name for path in made.release.iterdir() if path.is_dir()} == set(parts)
    settings = load()
    own = folders.settings_of(settings, folders.release_folder(settings, NAME), None)
    assert set(components.Components.of(own).versions) == {"literal", *parts}
    async with assemble.in_process(own) as stack:
        stack.tagger()
    assert not [
        path for path in made.release.rglob("*") if path.suffix in {".pt", ".npy", ".jsonl"} or path.is_symlink()
    ]


def test_why_it_was_chosen_and_what_it_is_worth_is_kept_with_it(made: Made) -> None:
    report = report_of(made)
    assert (report.plan.facts.contents, report.plan.facts.validation, report.plan.facts.test) == (72, 54, 30)
    assert [part.name for part in report.plan.choice.parts if part.chosen] == ["encoder", "ranker", "heads"]
    assert report.plan.choice.ranked == "folds"
    assert report.selection.contents == 54
    names = ["memory alone", "heads", "heads + ranker"]
    assert [row.name for row in report.selection.rows] == names
    gains = [row.gain for row in report.selection.rows]
    assert gains[0] is None
    assert all(gain is not None and gain.low <= gain.mean <= gain.high for gain in gains[1:])
    assert report.verdict.untrained is not None
    assert 0 < report.verdict.untrained["p_at_1"] < 100


def test_the_ranker_is_over_the_release_and_its_heads(made: Made) -> None:
    manifest = trees.read_manifest(made.work / "ranker")
    assert manifest.release == NAME
    assert set(manifest.components) == {"literal", "heads"}


class TestRefused:
    def test_a_release_that_is_there(self, small: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="is there already, and a release never changes"):
            command(str(small), tmp_path)

    @pytest.mark.parametrize("name", ["active", "Auto", "a b"])
    def test_a_name_that_no_release_may_have(self, small: Path, tmp_path: Path, name: str) -> None:
        with pytest.raises(UserError, match="is no release's name"):
            command(str(small), tmp_path / name)

    def test_a_run_of_other_options(self, made: Made, small: Path, tmp_path: Path) -> None:
        (tmp_path / made.work.name).mkdir()
        shutil.copyfile(made.work / "plan.json", tmp_path / made.work.name / "plan.json")
        with pytest.raises(UserError, match=r"minutes 10.0, .*: give the same to resume it, or another --out"):
            command(str(small), tmp_path / NAME, 20)

    def test_a_gpu_that_is_not_there(self, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        with pytest.raises(UserError, match="--gpu: torch finds no CUDA device here"):
            command(str(small), tmp_path / NAME, gpu=True)

    def test_a_corpus_without_training_contents(self, small: Path, tmp_path: Path) -> None:
        shutil.copytree(small, tmp_path / "empty")
        (tmp_path / "empty" / "train.jsonl").write_text("")
        with pytest.raises(UserError, match="has no training contents: there is nothing to train on"):
            command(str(tmp_path / "empty"), tmp_path / NAME)


def test_the_corpus_of_the_run_is_the_one_at_its_beginning(made: Made, small: Path) -> None:
    """What a resumed run trains on does not depend on what became of the corpus."""
    kept = (made.work / "corpus" / "train.jsonl").read_text().splitlines()
    ids = [json.loads(line)["id"] for line in kept]
    assert ids == [json.loads(line)["id"] for line in (small / "train.jsonl").read_text().splitlines()]
    # The validation contents are all held: the ranker learns from folds.
    assert len((made.work / "held" / "val.jsonl").read_text().splitlines()) == 60
