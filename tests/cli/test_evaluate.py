"""`tagbus evaluate` on a small part of the examples."""

import json
import lzma
import math
import os
import sys
from pathlib import Path

import pytest

from tagbus.stream.app.components import packaged
from tagbus.stream.contract.events import Content, Exemplar
from tagbus.stream.encoder.release import default_folder, load_release
from tests.cli.harness import Cli, Slice, write

FIGURES = {"p_at_1", "p_at_3", "p_at_5", "ndcg_at_5", "r_at_10", "psp_at_5", "ece"}


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
        assert answer.one_line().endswith("labels.tsv is read more than once, expected a regular file")

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
            ("labels.tsv", None, "has neither labels.tsv nor tags.jsonl"),
            ("labels.tsv", b"0\n", "labels.tsv:1: name: '' is wrong"),
            ("labels.tsv", b"\xff\n", "labels.tsv cannot be read: 'utf-8' codec"),
            ("test.tsv", b"a title\n", "test.tsv:1: expected text, tab, label numbers with commas"),
            ("test.tsv", b"a title\t\n", "test.tsv:1: accepted.0: '' is wrong"),
            ("test.tsv", b"a title\t999\n", "test-1: '999' is not a tag of the taxonomy"),
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

    @pytest.mark.parametrize(
        ("test", "expected"),
        [
            ([], "there are no test contents to measure on"),
            (["a", ""], "c1: no tag is right for this test content; every one needs at least one"),
            (["a", "a", "a"], "c1: two test contents have this id; ids must be unique"),
        ],
    )
    def test_test_contents_that_cannot_be_measured_on_are_told_before_anything_is_encoded(
        self, tagbus: Cli, tmp_path: Path, test: list[str], expected: str
    ) -> None:
        rows = [{"id": f"c{min(number, 1)}", "text": "Hives", "accepted": [*tag]} for number, tag in enumerate(test)]
        parts = {"tags": [{"id": "a", "name": "bees"}], "train": [], "val": [], "test": rows}
        for name, lines in parts.items():
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        answer = tagbus("evaluate", tmp_path, "--cache", tmp_path / "kept")
        assert (answer.code, answer.err.splitlines()[-1]) == (2, f"tagbus: {expected}")
        assert not (tmp_path / "kept").exists()

        assert "Traceback" not in answer.err


@pytest.fixture(scope="module")
def lines(cutting: Slice, unseen: list[Exemplar], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slice as JSON lines, with languages; one tag has been merged into another."""
    place = tmp_path_factory.mktemp("lines")
    known = {tag.id for tag in cutting.tags}
    annotated = [
        item.model_copy(update={"accepted": tuple(tag for tag in item.accepted if tag in known)}) for item in unseen
    ]
    first, second = annotated[60].accepted[0], cutting.tags[0].id
    tags = [
        tag.model_copy(update={"replaced_by": (second,)}) if tag.id == first != second else tag for tag in cutting.tags
    ]
    contents = [
        Content(id=item.id, title=item.title, text=item.text, language="en" if number % 2 else "de")
        for number, item in enumerate(annotated[60:])
    ]
    answers = [Exemplar(id=item.id, accepted=item.accepted) for item in annotated[60:]]
    for name, events in (
        ("tags", tags),
        ("exemplars", cutting.exemplars),
        ("calibration", annotated[:60]),
        ("content", contents),
        ("answers", answers),
    ):
        write(place / f"{name}.jsonl", events)
    return place


class TestErrors:
    """`tagbus evaluate --errors`: tests/app/mistakes has the parts of the page, tests/browser opens one."""

    def test_a_page_shows_what_went_wrong_and_curves_by_the_languages_of_json_lines(
        self, tagbus: Cli, lines: Path, tmp_path: Path
    ) -> None:
        page = tmp_path / "new" / "errors.html"
        answer = tagbus("evaluate", lines, "--errors", page, "--cache", tmp_path / "kept")
        assert answer.code == 0
        assert answer.err.splitlines()[-1] == f"{page}: open it in a browser"
        (row,) = json.loads(answer.lines[-1])["rows"]
        assert (row["tags"], row["exemplars"], row["contents"]) == (199, 300, 40)
        html = page.read_text(encoding="utf-8")
        assert f'<td class="number">{row["p_at_1"]}</td>' in html
        assert "similar contents have it" in html
        # Each tag that is missing says why it is.
        assert "not found: <bdi>it came to place " in html
        assert "20 contents, de" in html
        assert "20 contents, en" in html

    def test_without_jinja2_it_is_said_before_the_work(
        self, tagbus: Cli, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delitem(sys.modules, "tagbus.stream.app.mistakes.page", raising=False)
        monkeypatch.setitem(sys.modules, "jinja2", None)
        answer = tagbus("evaluate", folder, "--errors", tmp_path / "e.html", "--cache", tmp_path / "kept")
        assert answer.code == 2
        assert answer.one_line() == ("tagbus: --errors needs jinja2, which is not installed: pip install 'tagbus[llm]'")
        assert not (tmp_path / "kept").exists()
