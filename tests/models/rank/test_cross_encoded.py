"""The ranker with a cross-encoder, from training to the tagger, on a slice of the examples."""

from pathlib import Path

import pytest

from tagbus.models.rank import ranker
from tagbus.stream.app.data.examples import example
from tagbus.stream.app.explain.explanation import Explanation
from tagbus.stream.app.places import files
from tagbus.stream.calibrate import load
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.rank import trees
from tagbus.stream.rank.cross_encoder.model import Manifest
from tests.cli.harness import Cli, Slice, clean, cut, objects, write
from tests.cross_encoders import write_cross_encoder


@pytest.fixture(scope="module")
def cutting(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    some = cut(tmp_path_factory.mktemp("slice"))
    known = {tag.id for tag in some.tags}
    held = [
        item.model_copy(update={"accepted": kept})
        for item in files.all_of(example("calibration.jsonl"), files.exemplar_of)
        if (kept := tuple(tag for tag in item.accepted if tag in known))
    ]
    write(some.folder / "calibration.jsonl", held[:60])
    return some


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("cross_encoder")
    return folder, write_cross_encoder(folder, 96)


@pytest.fixture(scope="module")
def trained(cutting: Slice, cross_encoder: tuple[Path, Manifest], tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("ranker")
    with pytest.MonkeyPatch.context() as patch:
        clean(patch)
        patch.setenv("TAGBUS_COMPONENTS__CROSS_ENCODER__FOLDER", str(cross_encoder[0]))
        patch.setenv("TAGBUS_COMPONENTS__LITERAL__ENABLED", "true")
        ranker.command(str(cutting.folder), to, cutting.folder / "cache", trees=50, top=5, kept=40, neighbours=60)
    return to


@pytest.fixture
def tagbus(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    return Cli(monkeypatch, capfd)


def on(trained: Path, cross_encoder: tuple[Path, Manifest]) -> dict[str, str]:
    return {
        "COMPONENTS__RANKER__FOLDER": str(trained),
        "COMPONENTS__CROSS_ENCODER__FOLDER": str(cross_encoder[0]),
        "COMPONENTS__LITERAL__ENABLED": "true",
        "TAGGER__TAGS": "12",
    }


def test_what_is_trained_is_named_after_both(trained: Path, cross_encoder: tuple[Path, Manifest]) -> None:
    manifest = trees.read_manifest(trained)
    assert manifest.second_stage is not None
    assert manifest.second_stage.components == {"cross_encoder": cross_encoder[1].name}
    assert (manifest.second_stage.top, manifest.kept, manifest.neighbours) == (5, 40, 60)
    versions = {**manifest.components, "ranker": manifest.name, "cross_encoder": cross_encoder[1].name}
    fitted = Fingerprint(manifest.release, "recall+literal+rank+cross_encoder", versions)
    load(trained / trees.CALIBRATION, fitted)


def test_the_tagger_asks_it_about_the_best_and_says_so(
    trained: Path, cross_encoder: tuple[Path, Manifest], cutting: Slice, tagbus: Cli
) -> None:
    answer = tagbus("explain", cutting.file, *cutting.memory, "--json", settings=on(trained, cross_encoder))

    assert answer.code == 0, answer.err
    found = [Explanation.model_validate_json(line) for line in answer.lines]
    assert found[0].versions.components["ranker"] == trees.read_manifest(trained).name
    assert found[0].versions.components["cross_encoder"] == cross_encoder[1].name
    assert found[0].versions.calibration.startswith("isotonic-")
    published = [tag for one in found for tag in one.candidates if tag.cut is None]
    assert len(published) == 12 * len(cutting.contents)
    scores = [tag.features["cross"] for tag in published if tag.features and tag.features["cross"] is not None]
    # At most five per content: one may rank below the twelve.
    assert 4 * len(cutting.contents) < len(scores) <= 5 * len(cutting.contents)
    assert 0 <= min(scores) < max(scores) <= 1


def test_a_result_names_it(trained: Path, cross_encoder: tuple[Path, Manifest], cutting: Slice, tagbus: Cli) -> None:
    answer = tagbus("tag", cutting.file, *cutting.memory, settings=on(trained, cross_encoder))

    (first, *_) = objects(answer.out)
    assert first["path"] == ["prepare", "encode", "recall", "literal", "rank", "cross_encoder", "select", "calibrate"]
    assert first["versions"]["components"]["cross_encoder"] == cross_encoder[1].name  # type: ignore[index]


def test_without_it_the_ranker_is_refused(
    trained: Path, cross_encoder: tuple[Path, Manifest], cutting: Slice, tagbus: Cli
) -> None:
    settings = {
        name: value for name, value in on(trained, cross_encoder).items() if name != "COMPONENTS__CROSS_ENCODER__FOLDER"
    }

    answer = tagbus("tag", cutting.file, *cutting.memory, settings=settings)

    assert answer.code == 6
    assert f"was trained over cross_encoder '{cross_encoder[1].name}', but this is None" in answer.one_line()
