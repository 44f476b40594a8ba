"""What was trained, opened by the settings: which calibration belongs to it, and what does not fit."""

import json
from pathlib import Path

import pytest

from tagbus.stream import rank
from tagbus.stream.calibrate import uncalibrated
from tagbus.stream.cli.learnt import calibration_of, open_learnt, packaged, pipeline_of
from tagbus.stream.config import HeadsSettings, RankSettings, RecallSettings, Settings, TaggerSettings
from tagbus.stream.encoder.release import default_folder, load_release
from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.tagger import Pipeline

RELEASE = load_release(default_folder()).name


def settings(**chosen: object) -> Settings:
    return Settings.model_construct(**chosen)  # type: ignore[arg-type]


def test_with_nothing_switched_on_all_is_the_release() -> None:
    assert pipeline_of(settings(), RELEASE) == Pipeline(RELEASE)
    learnt = open_learnt(settings(), RELEASE)
    assert (learnt.heads, learnt.ranker) == (None, None)


def test_the_calibration_beside_the_model_is_for_the_model_alone() -> None:
    assert calibration_of(settings(), RELEASE).release == RELEASE
    literal = settings(recall=RecallSettings(literal=True))
    assert calibration_of(literal, RELEASE) == uncalibrated(f"{RELEASE}+literal")


def test_a_calibration_that_is_named_must_fit(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    uncalibrated("another").save(path)
    with pytest.raises(ReleaseMismatch, match=f"is fitted to 'another', but this is '{RELEASE}'; run `tagbus calib"):
        calibration_of(settings(tagger=TaggerSettings(calibration=path)), RELEASE)


@pytest.mark.parametrize("part", ["heads", "rank"])
def test_a_folder_that_holds_nothing_is_told(part: str, tmp_path: Path) -> None:
    chosen = {"heads": HeadsSettings(folder=tmp_path), "rank": RankSettings(folder=tmp_path)}[part]
    with pytest.raises(UserError, match=str(tmp_path)):
        open_learnt(settings(**{part: chosen}), RELEASE)


class TestPackaged:
    """What `make models` has put beside the encoder, which the demo runs with."""

    def test_its_parts_fit_each_other_and_the_release(self, monkeypatch: pytest.MonkeyPatch) -> None:
        on = packaged()
        assert on.keys() == {"TAGBUS_HEADS__FOLDER", "TAGBUS_RANK__FOLDER", "TAGBUS_RECALL__LITERAL"}
        for name, value in on.items():
            monkeypatch.setenv(name, value)
        given = Settings()
        learnt = open_learnt(given, RELEASE)
        assert learnt.pipeline.ranker == rank.read_manifest(Path(on["TAGBUS_RANK__FOLDER"])).name
        assert calibration_of(given, RELEASE).name.startswith("isotonic-")

    def test_with_the_encoder_it_is_less_than_60_megabytes(self) -> None:
        folder = default_folder().parents[1]
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert size < 60_000_000

    def test_a_ranker_of_other_heads_is_refused(self, tmp_path: Path) -> None:
        on = packaged()
        place = Path(on["TAGBUS_RANK__FOLDER"])
        for path in place.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        manifest = json.loads((place / rank.MANIFEST).read_text()) | {"heads": "heads-00000000"}
        (tmp_path / rank.MANIFEST).write_text(json.dumps(manifest))
        given = settings(
            recall=RecallSettings(literal=on["TAGBUS_RECALL__LITERAL"] == "true"),
            heads=HeadsSettings(folder=Path(on["TAGBUS_HEADS__FOLDER"])),
            rank=RankSettings(folder=tmp_path),
        )
        with pytest.raises(ReleaseMismatch, match="was trained over heads 'heads-00000000', but this is 'heads-"):
            open_learnt(given, RELEASE)
