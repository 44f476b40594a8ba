"""`tagbus calibrate` on a small part of the examples."""

import json
from pathlib import Path

import pytest

from tagbus.stream import calibrate
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.encoder.release import default_folder, load_release
from tests.cli.harness import Cli, Slice, objects, write
from tests.support import fifo


class TestCalibrate:
    def test_it_fits_a_curve_that_tag_takes(
        self, tagbus: Cli, cutting: Slice, unseen: list[Exemplar], tmp_path: Path
    ) -> None:
        out = tmp_path / "calibration.json"
        fitted = tagbus("calibrate", write(tmp_path / "fit.jsonl", unseen), *cutting.memory, "--out", out)
        assert fitted.code == 0
        release = load_release(default_folder()).name
        curve = calibrate.load(out, Fingerprint(release, "recall", {}))
        assert (curve.release, curve.contents) == (release, len(unseen))
        assert fitted.err.splitlines()[-1] == (
            f"{curve.name} for release {release}: {curve.fitted_on} pairs of {len(unseen)} contents, {out}"
        )
        answers = objects(tagbus("tag", cutting.file, *cutting.memory, TAGGER__CALIBRATION=str(out)).out)
        assert {one["versions"]["calibration"] for one in answers} == {curve.name}  # type: ignore[index]

    def test_its_report_says_what_the_confidences_are_worth(
        self, tagbus: Cli, cutting: Slice, unseen: list[Exemplar], tmp_path: Path
    ) -> None:
        file, out = write(tmp_path / "fit.jsonl", unseen), tmp_path / "c.json"
        wanted = ("--report", tmp_path / "worth", "--accuracy", "20", "--at", "2")
        answer = tagbus("calibrate", file, *cutting.memory, "--out", out, *wanted)
        assert answer.code == 0
        figures = json.loads((tmp_path / "worth" / "report.json").read_text())
        assert (figures["contents"], figures["k"], figures["judge"]) == (len(unseen), 2, None)
        assert figures["wanted"][0]["wanted"] == "Acc@2 of 20"
        assert (tmp_path / "worth" / "report.txt").read_text().rstrip() in answer.out
        without = tagbus("calibrate", file, *cutting.memory, "--out", out, "--accuracy", "20")
        assert without.code == 2
        assert without.one_line().endswith("expected --report with them")

    def test_the_same_input_gives_the_same_curve(
        self, tagbus: Cli, cutting: Slice, unseen: list[Exemplar], tmp_path: Path
    ) -> None:
        file = write(tmp_path / "fit.jsonl", unseen)
        for name in ("a", "b"):
            assert tagbus("calibrate", file, *cutting.memory, "--out", tmp_path / name).code == 0
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    def test_every_file_may_be_a_pipe(
        self, tagbus: Cli, cutting: Slice, unseen: list[Exemplar], tmp_path: Path
    ) -> None:
        _, tags, _, exemplars = cutting.memory
        fit = write(tmp_path / "fit.jsonl", unseen)
        with (
            fifo(tmp_path / "fit", fit.read_bytes()) as contents,
            fifo(tmp_path / "tags", Path(tags).read_bytes()) as taxonomy,
            fifo(tmp_path / "exemplars", Path(exemplars).read_bytes()) as annotated,
        ):
            answer = tagbus(
                "calibrate", contents, "--tags", taxonomy, "--exemplars", annotated, "--out", tmp_path / "piped"
            )
        assert answer.code == 0
        assert tagbus("calibrate", fit, *cutting.memory, "--out", tmp_path / "read").code == 0
        assert (tmp_path / "piped").read_bytes() == (tmp_path / "read").read_bytes()

    def test_a_place_that_is_full_is_one_line(
        self, tagbus: Cli, cutting: Slice, unseen: list[Exemplar], tmp_path: Path
    ) -> None:
        file = write(tmp_path / "fit.jsonl", unseen)
        answer = tagbus("calibrate", file, *cutting.memory, "--out", "/dev/full")
        assert answer.code == 2
        assert answer.err.splitlines()[-1] == "tagbus: /dev/full: cannot be written (No space left on device)"

    def test_contents_that_memory_holds_are_refused(self, tagbus: Cli, cutting: Slice, tmp_path: Path) -> None:
        file = cutting.folder / "exemplars.jsonl"
        answer = tagbus("calibrate", file, *cutting.memory, "--out", tmp_path / "c")
        assert answer.code == 2
        assert f"{cutting.exemplars[0].id!r} is among the exemplars too" in answer.one_line()

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            (b'{"id": 1}', "fit.jsonl:1: id: 1 is wrong"),
            (b'{"id": "a", "title": "Bees", "accepted": ["p1"]}', "a calibration needs at least 50 pairs"),
            (b'{"id": "a", "accepted": ["p1"]}', "a: text: '' is wrong, expected a title or a text that is not empty"),
        ],
    )
    def test_wrong_input_is_one_line(
        self, tagbus: Cli, cutting: Slice, tmp_path: Path, line: bytes, expected: str
    ) -> None:
        file = tmp_path / "fit.jsonl"
        file.write_bytes(line)
        answer = tagbus("calibrate", file, *cutting.memory[:2], "--out", tmp_path / "c")
        assert answer.code == 2
        assert expected in answer.err.splitlines()[-1]
        assert "Traceback" not in answer.err
        assert not (tmp_path / "c").exists()

    def test_a_place_that_cannot_be_written_is_told_before_the_work(
        self, tagbus: Cli, cutting: Slice, tmp_path: Path
    ) -> None:
        out = tmp_path / "nowhere" / "c"
        answer = tagbus("calibrate", cutting.file, *cutting.memory, "--out", out)
        assert answer.code == 2
        assert answer.one_line().startswith(f"tagbus: --out {out}: ")
