"""What was trained, opened by the settings: which calibration belongs to it, and what does not fit."""

import json
from pathlib import Path

import pytest

from tagbus.stream.app.trained import calibration_of, open_learnt, packaged, pipeline_of
from tagbus.stream.calibrate import uncalibrated
from tagbus.stream.config import (
    CrossEncoderSettings,
    HeadsSettings,
    RankSettings,
    RecallSettings,
    Settings,
    TaggerSettings,
)
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.encoder.release import default_folder, load_release
from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.rank import trees
from tagbus.stream.tagger import Pipeline
from tests.cross_encoders import write_cross_encoder

RELEASE = load_release(default_folder()).name


def settings(**chosen: object) -> Settings:
    return Settings.model_construct(**chosen)  # type: ignore[arg-type]


async def test_with_nothing_switched_on_all_is_the_release() -> None:
    assert pipeline_of(settings(), RELEASE) == Pipeline(RELEASE)
    learnt = await open_learnt(settings(), RELEASE)
    assert (learnt.heads, learnt.ranker, learnt.cross_encoder) == (None, None, None)


def test_the_calibration_beside_the_model_is_for_the_model_alone() -> None:
    assert calibration_of(settings(), RELEASE).release == RELEASE
    literal = settings(recall=RecallSettings(literal=True))
    assert calibration_of(literal, RELEASE) == uncalibrated(Fingerprint(RELEASE, "recall+literal", {}))


def test_a_calibration_that_is_named_must_fit(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    uncalibrated(Fingerprint("another", "recall", {})).save(path)
    with pytest.raises(ReleaseMismatch, match=f"fitted to 'another by recall', but this is '{RELEASE} by recall'; run"):
        calibration_of(settings(tagger=TaggerSettings(calibration=path)), RELEASE)


@pytest.mark.parametrize("part", ["heads", "rank"])
async def test_a_folder_that_holds_nothing_is_told(part: str, tmp_path: Path) -> None:
    chosen = {"heads": HeadsSettings(folder=tmp_path), "rank": RankSettings(folder=tmp_path)}[part]
    with pytest.raises(UserError, match=str(tmp_path)):
        await open_learnt(settings(**{part: chosen}), RELEASE)


async def test_a_cross_encoder_without_a_ranker_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"TAGBUS_CROSS_ENCODER__FOLDER=.*; set TAGBUS_RANK__FOLDER"):
        await open_learnt(settings(cross_encoder=CrossEncoderSettings(folder=tmp_path)), RELEASE)


class TestPackaged:
    """What `make models` has put beside the encoder, which the demo runs with."""

    async def test_its_parts_fit_each_other_and_the_release(self, monkeypatch: pytest.MonkeyPatch) -> None:
        on = packaged()
        assert on.keys() == {"TAGBUS_HEADS__FOLDER", "TAGBUS_RANK__FOLDER", "TAGBUS_RECALL__LITERAL"}
        for name, value in on.items():
            monkeypatch.setenv(name, value)
        given = Settings()
        learnt = await open_learnt(given, RELEASE)
        assert learnt.pipeline.ranker == trees.read_manifest(Path(on["TAGBUS_RANK__FOLDER"])).name
        assert calibration_of(given, RELEASE).name.startswith("isotonic-")

    async def test_a_cross_encoder_that_the_ranker_does_not_know_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        manifest = write_cross_encoder(tmp_path)
        for name, value in (packaged() | {"TAGBUS_CROSS_ENCODER__FOLDER": str(tmp_path)}).items():
            monkeypatch.setenv(name, value)
        assert pipeline_of(Settings(), RELEASE).cross_encoder == manifest.name
        with pytest.raises(ReleaseMismatch, match=f"trained over cross_encoder None, but this is '{manifest.name}'"):
            await open_learnt(Settings(), RELEASE)

    def test_with_the_encoder_it_is_less_than_60_megabytes(self) -> None:
        folder = default_folder().parents[1]
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert size < 60_000_000

    async def test_a_ranker_of_other_heads_is_refused(self, tmp_path: Path) -> None:
        on = packaged()
        place = Path(on["TAGBUS_RANK__FOLDER"])
        for path in place.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        manifest = json.loads((place / trees.MANIFEST).read_text()) | {"heads": "heads-00000000"}
        (tmp_path / trees.MANIFEST).write_text(json.dumps(manifest))
        given = settings(
            recall=RecallSettings(literal=on["TAGBUS_RECALL__LITERAL"] == "true"),
            heads=HeadsSettings(folder=Path(on["TAGBUS_HEADS__FOLDER"])),
            rank=RankSettings(folder=tmp_path),
        )
        with pytest.raises(ReleaseMismatch, match="was trained over heads 'heads-00000000', but this is 'heads-"):
            await open_learnt(given, RELEASE)
