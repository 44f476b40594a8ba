"""`tagbus calibrate` and `tagbus evaluate` on a small part of the examples."""

import json
import lzma
import math
import os
from pathlib import Path

import pytest

from tagbus.stream import calibrate
from tagbus.stream.app.components import packaged
from tagbus.stream.app.data.examples import example
from tagbus.stream.app.places import files
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.encoder.release import default_folder, load_release
from tests.cli.harness import Cli, Slice, objects, write
from tests.support import fifo

FIGURES = {"p_at_1", "p_at_3", "p_at_5", "ndcg_at_5", "r_at_10", "psp_at_5", "ece"}


@pytest.fixture(scope="module")
def unseen(cutting: Slice) -> list[Exemplar]:
    """Annotated titles that the slice's memory does not hold, with a tag that it does."""
    known, memory = {tag.id for tag in cutting.tags}, {item.id for item in cutting.exemplars}
    every = files.all_of(example("exemplars.jsonl"), files.exemplar_of)
    return [item for item in every if item.id not in memory and known & set(item.accepted)][:100]


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
        assert without.one_line().endswith("name a folder with --report")

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
        assert answer.one_line().startswith(f"tagbus: {out}: ")


@pytest.fixture(scope="module")
def folder(cutting: Slice, unseen: list[Exemplar], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slice as a folder of text and tag numbers."""
    place = tmp_path_factory.mktemp("tsv")
    number = {tag.id: index for index, tag in enumerate(cutting.tags)}
    labels = [f"{index}\thttp://example.org/{tag.id}\t{tag.name}" for index, tag in enumerate(cutting.tags)]
    (place / "labels.tsv").write_text("\n".join(labels) + "\n")
    for split, items in (("train", cutting.exemplars), ("val", unseen[:60]), ("test", unseen[60:])):
        rows = (
            (f"{item.title} {item.text}".strip(), [str(number[tag]) for tag in item.accepted if tag in number])
            for item in items
        )
        (place / f"{split}.tsv").write_text("".join(f"{text}\t{','.join(tags)}\n" for text, tags in rows))
    return place


class TestEvaluate:
    def test_a_place_that_is_full_is_one_line_after_the_figures(
        self, tagbus: Cli, folder: Path, tmp_path: Path
    ) -> None:
        answer = tagbus("evaluate", folder, "--out", "/dev/full", "--cache", tmp_path / "kept")
        assert answer.code == 2
        assert answer.err.splitlines()[-1] == "tagbus: /dev/full: cannot be written (No space left on device)"
        assert set(json.loads(answer.lines[-1])) == {"method", "rows"}

    def test_a_pipe_is_refused_since_files_are_read_more_than_once(self, tagbus: Cli, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "labels.tsv")
        answer = tagbus("evaluate", tmp_path)
        assert answer.code == 2
        assert answer.one_line().endswith("labels.tsv is no regular file, and is read more than once")

    def test_the_figures_as_a_table_and_as_json(self, tagbus: Cli, folder: Path, tmp_path: Path) -> None:
        report = tmp_path / "bench" / "quality.json"
        answer = tagbus("evaluate", folder, "--out", report, "--cache", tmp_path / "kept")
        assert answer.code == 0
        printed = json.loads(answer.lines[-1])
        assert printed == json.loads(report.read_text())
        assert set(printed) == {"method", "rows"}
        (row,) = printed["rows"]
        assert set(row) >= FIGURES | {"name"}
        assert all(math.isfinite(row[name]) for name in FIGURES)
        # In percent, and better than chance: one tag of 200.
        assert 20 < row["p_at_1"] <= 100
        assert row["p_at_1"] >= row["p_at_3"] >= row["p_at_5"]
        assert 0 <= row["ece"] < 1
        assert (row["tags"], row["exemplars"], row["contents"]) == (200, 300, 40)
        for name in FIGURES:
            assert name in answer.err

    def test_what_ran_is_named(self, tagbus: Cli, folder: Path, tmp_path: Path) -> None:
        """Given components or none, when figures are written, then name and method say the versions."""
        on = {name.removeprefix("TAGBUS_"): value for name, value in packaged().items()}
        bare, with_components = (
            json.loads(tagbus("evaluate", folder, "--cache", tmp_path / "kept", settings=settings).lines[-1])
            for settings in ({"RECALL__C2T": "false", "MEMORY__KIND": "hnsw"}, on)
        )

        release = load_release(default_folder()).name
        (row,) = bare["rows"]
        assert row["name"] == f"{release}, no components"
        assert row["ran"] == {
            "release": release,
            "path": "recall",
            "components": {},
            "memory": "hnsw",
            "recall": {"c2t": False},
        }
        assert "Memory (hnsw)" in bare["method"]
        assert "recall by C2C2T with" in bare["method"]
        assert "components: none" in bare["method"]

        (row,) = with_components["rows"]
        ran = row["ran"]["components"]
        assert set(ran) == {"literal", "heads", "ranker"}
        assert row["ran"]["path"] == "recall+literal+heads+rank"
        assert all(version in row["name"] and version in with_components["method"] for version in ran.values())
        assert "untrained" not in json.dumps(with_components)
        assert "nothing trained" not in json.dumps(with_components)

    def test_compressed_training_titles_and_a_cache_change_nothing(
        self, tagbus: Cli, folder: Path, tmp_path: Path
    ) -> None:
        packed = tmp_path / "packed"
        packed.mkdir()
        for name in ("labels.tsv", "val.tsv", "test.tsv"):
            (packed / name).write_bytes((folder / name).read_bytes())
        with lzma.open(packed / "train.tsv.xz", "wb") as file:
            file.write((folder / "train.tsv").read_bytes())
        kept = tmp_path / "kept"
        figures = [
            {name: value for name, value in row.items() if name != "contents_per_second"}
            for place in (folder, packed)
            for row in json.loads(tagbus("evaluate", place, "--cache", kept).lines[-1])["rows"]
        ]
        assert figures[0] == figures[1]

    @pytest.mark.parametrize(
        ("name", "content", "expected"),
        [
            ("labels.tsv", None, "labels.tsv cannot be read: No such file or directory"),
            ("labels.tsv", b"0\n", "labels.tsv:1: name: '' is wrong"),
            ("labels.tsv", b"\xff\n", "labels.tsv cannot be read: 'utf-8' codec"),
            ("test.tsv", b"a title\n", "test.tsv:1: expected text, tab, label numbers with commas"),
            ("test.tsv", b"a title\t\n", "test.tsv:1: accepted.0: '' is wrong"),
            ("test.tsv", b"a title\t999\n", "test-1: '999' is no number of labels.tsv"),
            ("train.tsv.xz", b"no archive", "train.tsv.xz cannot be read: "),
        ],
    )
    def test_wrong_data_is_one_line(
        self, tagbus: Cli, folder: Path, tmp_path: Path, name: str, content: bytes | None, expected: str
    ) -> None:
        data = tmp_path / "data"
        data.mkdir()
        for path in folder.iterdir():
            if path.name != name.removesuffix(".xz"):
                (data / path.name).write_bytes(path.read_bytes())
        if content is not None:
            (data / name).write_bytes(content)
        answer = tagbus("evaluate", data, "--cache", tmp_path / "kept")
        assert answer.code == 2
        assert expected in answer.err.splitlines()[-1]
        assert "Traceback" not in answer.err
