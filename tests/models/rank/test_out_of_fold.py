"""Heads and ranker out of fold, on a slice of the examples; `make models` uses all of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic_core import from_json

from tagbus.models.data.corpus import open_corpus, without
from tagbus.models.rank import out_of_fold
from tagbus.models.rank.candidates import Candidates, TrainingSet
from tagbus.stream.app.data.examples import example
from tagbus.stream.app.explain.explanation import Explanation
from tagbus.stream.app.places import files
from tagbus.stream.calibrate import load
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.errors import UserError
from tagbus.stream.rank import trees
from tagbus.stream.recall.heads import model as heads
from tests.cli.harness import Cli, Slice, cut, write


@pytest.fixture(scope="module")
def cutting(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    some = cut(tmp_path_factory.mktemp("slice"))
    held = [
        item.model_copy(update={"accepted": known})
        for item in files.all_of(example("calibration.jsonl"), files.exemplar_of)
        if (known := tuple(tag for tag in item.accepted if tag in {one.id for one in some.tags}))
    ]
    write(some.folder / "calibration.jsonl", held[:20])
    return some


@pytest.fixture(scope="module")
def trained(cutting: Slice, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    out_of_fold.command(str(cutting.folder), folder / "heads", folder / "ranker", folds=2, epochs=2, batch=32)
    return folder


def test_the_ranker_is_the_one_of_the_heads_that_are_written(trained: Path) -> None:
    manifest = trees.read_manifest(trained / "ranker")
    assert manifest.components["heads"] == heads.read_manifest(trained / "heads").name
    assert manifest.fitted_on == heads.read_manifest(trained / "heads").fitted_on == 300
    assert set(manifest.lists) == {"names", "literal", "heads"}


def test_only_what_the_tagger_reads_is_written(trained: Path) -> None:
    assert {path.name for path in (trained / "heads").iterdir()} == {heads.MODEL, heads.WORDS, heads.MANIFEST}
    assert {path.name for path in (trained / "ranker").iterdir()} == {
        trees.MODEL,
        trees.TABLES,
        trees.CALIBRATION,
        trees.MANIFEST,
    }


def test_the_calibration_is_that_of_the_whole_pipeline(trained: Path) -> None:
    manifest = trees.read_manifest(trained / "ranker")
    versions = {**manifest.components, "ranker": manifest.name}
    fingerprint = Fingerprint(manifest.release, "recall+literal+heads+rank", versions)
    load(trained / "ranker" / trees.CALIBRATION, fingerprint)


@pytest.fixture
def tagbus(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    return Cli(monkeypatch, capfd)


def test_the_tagger_takes_both_and_explains_each_feature(trained: Path, cutting: Slice, tagbus: Cli) -> None:
    on = {
        "COMPONENTS__HEADS__FOLDER": str(trained / "heads"),
        "COMPONENTS__RANKER__FOLDER": str(trained / "ranker"),
        "COMPONENTS__LITERAL__ENABLED": "true",
    }
    answer = tagbus("explain", cutting.file, *cutting.memory, "--json", settings=on)
    assert answer.code == 0, answer.err
    manifest = trees.read_manifest(trained / "ranker")
    found = Explanation.model_validate_json(answer.lines[0])
    versions = found.versions
    assert versions.components == {**manifest.components, "ranker": manifest.name}
    assert versions.calibration.startswith("isotonic-")
    assert found.scored_by == "recall+literal+heads+rank"
    best = found.candidates[0]
    assert best.features is not None
    assert tuple(best.features) == manifest.columns


@pytest.fixture(scope="module")
def left_out(cutting: Slice) -> Path:
    path = cutting.folder / "new.txt"
    path.write_text("".join(f"{tag.id}\n" for tag in cutting.tags[:3]))
    return path


def once(cutting: Slice, left_out: Path, place: Path) -> None:
    out_of_fold.command(
        str(cutting.folder),
        place / "heads",
        place / "ranker",
        size=out_of_fold.Size.LARGE,
        folds=3,
        taken=1,
        left_out=left_out,
        cache=place / "cache",
        keep=place / "kept",
        epochs=1,
        batch=32,
    )


@pytest.fixture(scope="module")
def large(cutting: Slice, left_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("large")
    once(cutting, left_out, place)
    return place


def test_one_fold_and_the_validation_contents_teach_the_ranker_of_a_large_corpus(
    large: Path, cutting: Slice, left_out: Path
) -> None:
    corpus = without(open_corpus(str(cutting.folder)), left_out)
    held = [item for item in corpus.exemplars("train") if out_of_fold.fold_of(item, 3) == 0]
    assert 50 < len(held) < 150
    val = list(corpus.exemplars("val"))
    assert trees.read_manifest(large / "ranker").fitted_on == len(held) + len(val)


def test_tags_that_are_left_out_are_known_to_neither(large: Path, cutting: Slice) -> None:
    new = {tag.id for tag in cutting.tags[:3]}
    assert not new & set(heads.read_manifest(large / "heads").tags)
    with np.load(large / "ranker" / trees.TABLES, allow_pickle=False) as tables:
        known = from_json(tables["tags"].tobytes())
    assert {tag.id for tag in cutting.tags} - new <= set(known)
    assert not new & set(known)


def test_a_run_that_is_kept_goes_on(
    large: Path, cutting: Slice, left_out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What was trained and collected is kept; the ranker of it is the same."""
    before = trees.read_manifest(large / "ranker")
    written = times(large)
    once(cutting, left_out, large)
    assert times(large) == written
    said = " ".join(capfd.readouterr().err.split())
    assert said.count(" is trained") == 1
    assert said.count(" are collected") == 1
    assert "resuming at step" not in said
    assert trees.read_manifest(large / "ranker") == before
    costs = [json.loads(line) for line in (large / "ranker" / "metrics.jsonl").read_text().splitlines()]
    assert costs[-1]["cpu_seconds"] > 0


def times(place: Path) -> dict[Path, int]:
    """The heads and candidates of a run, and when they were written."""
    return {path: path.stat().st_mtime_ns for name in ("heads.onnx", "candidates.npz") for path in place.rglob(name)}


def test_a_run_of_other_options_is_refused(large: Path, cutting: Slice) -> None:
    with pytest.raises(UserError, match=r"plan\.json is of another run"):
        out_of_fold.command(str(cutting.folder), large / "heads", large / "ranker", keep=large / "kept")


def test_lessons_are_joined_content_by_content() -> None:
    def one(rows: list[int], contents: int) -> TrainingSet:
        number = len(rows)
        part = Candidates(
            np.array(rows, np.int64),
            np.arange(number),
            np.zeros((number, 2), np.float32),
            np.zeros(number, np.bool_),
            np.zeros(number, np.float32),
        )
        return TrainingSet(part, part, [np.array([row]) for row in range(contents)], np.ones(3))

    joined = out_of_fold.join([one([0, 1, 1], 3), one([0, 2], 3)])
    assert joined.plain.rows.tolist() == [0, 1, 1, 3, 5]
    assert len(joined.truth) == 6
