"""`tagbus tag`: a file in, a file out, the same tagger."""

from pathlib import Path

import pytest

from tagbus.stream.contract.events import TaggedContent
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.release import default_folder
from tests.cli.harness import Cli, Slice, objects, process
from tests.support import fifo


def test_an_answer_for_each_content_in_their_order(tagbus: Cli, cutting: Slice) -> None:
    answer = tagbus("tag", cutting.file, *cutting.memory)
    assert answer.code == 0
    results = [TaggedContent.model_validate_json(line) for line in answer.lines]
    assert [result.id for result in results] == [content.id for content in cutting.contents]
    known = {tag.id: tag.name for tag in cutting.tags}
    assert sum(bool(result.tags) for result in results) > 30
    for result in results:
        assert len(result.tags) <= 10
        assert all(known[tag.id] == tag.name for tag in result.tags)
        assert [tag.score for tag in result.tags] == sorted((tag.score for tag in result.tags), reverse=True)


def test_standard_input_to_standard_output_as_a_process(tagbus: Cli, cutting: Slice) -> None:
    from_file = tagbus("tag", cutting.file, *cutting.memory)
    piped = process("tag", *cutting.memory, stdin=cutting.file.read_bytes())
    assert piped.code == 0
    assert piped.out == from_file.out
    # Plain lines where there is no terminal, on standard error alone.
    assert piped.err.splitlines()[-1] == "encoding memory: 500 of 500"


def test_every_file_may_be_a_pipe(tagbus: Cli, cutting: Slice, tmp_path: Path) -> None:
    _, tags, _, exemplars = cutting.memory
    with (
        fifo(tmp_path / "content", cutting.file.read_bytes()) as contents,
        fifo(tmp_path / "tags", Path(tags).read_bytes()) as taxonomy,
        fifo(tmp_path / "exemplars", Path(exemplars).read_bytes()) as annotated,
    ):
        piped = tagbus("tag", contents, "--tags", taxonomy, "--exemplars", annotated)
    assert piped.code == 0
    assert piped.out == tagbus("tag", cutting.file, *cutting.memory).out


def test_two_inputs_may_not_be_one_pipe(tagbus: Cli) -> None:
    answer = tagbus("tag", "-", "--tags", "-", stdin=b'{"id": "a", "name": "bees"}')
    assert answer.code == 2
    assert answer.one_line().endswith("standard input is the input standard input again, which can be read only once")


def test_tags_alone_are_enough(tagbus: Cli, cutting: Slice) -> None:
    (result,) = objects(tagbus("tag", *cutting.memory[:2], stdin=b'{"id": "x", "title": "Chess game"}').out)
    assert result["tags"]
    assert all(tag["evidence"]["votes"] == 0 for tag in result["tags"])  # type: ignore[attr-defined]


def test_a_line_that_cannot_be_tagged_is_answered_in_its_place(tagbus: Cli, cutting: Slice) -> None:
    lines = [
        b'{"id": "first", "title": "Bees"}',
        b"{",
        b'{"id": 7, "text": "x"}',
        b'{"id": "nul", "text": "a\\u0000b"}',
        b'{"id": "surrogate", "text": "\\ud800"}',
        b'{"id": "empty", "text": " "}',
        b'{"id": "last", "text": "Honey"}',
    ]
    answer = tagbus("tag", *cutting.memory, stdin=b"\n".join(lines))
    assert answer.code == 3
    assert answer.err.splitlines()[-1] == "tagbus: 4 contents could not be tagged; their lines say why"
    answers = objects(answer.out)
    assert [found["id"] for found in answers] == ["first", None, None, "nul", None, None, "last"]
    assert [found.get("line") for found in answers] == [None, "-:2", "-:3", None, "-:5", "-:6", None]
    wrong = [found for found in answers if "error" in found]
    assert all(set(found) == {"id", "line", "error"} for found in wrong)
    assert "id: 7 is wrong, expected a string" in str(wrong[1]["error"])


def test_a_cache_spares_the_second_run_the_encoding(
    tagbus: Cli, cutting: Slice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = OnnxEncoder.encode

    async def counted(self: OnnxEncoder, texts: list[str]) -> object:
        encoded.append(len(texts))
        return await encode(self, texts)

    monkeypatch.setattr(OnnxEncoder, "encode", counted)
    first = tagbus("tag", cutting.file, *cutting.memory, "--cache", tmp_path / "kept")
    assert sum(encoded) == 200 + 300 + 40
    encoded.clear()
    second = tagbus("tag", cutting.file, *cutting.memory, "--cache", tmp_path / "kept")
    assert sum(encoded) == 40
    assert second.out == first.out


def test_a_tag_that_left_the_file_leaves_the_cache(tagbus: Cli, cutting: Slice, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    tagbus("tag", cutting.file, *cutting.memory, "--cache", kept)
    fewer = tmp_path / "tags.jsonl"
    fewer.write_text("".join((cutting.folder / "tags.jsonl").read_text().splitlines(keepends=True)[:1]))
    answer = tagbus("tag", cutting.file, "--tags", fewer, "--cache", kept)
    assert {tag["id"] for one in objects(answer.out) for tag in one["tags"]} <= {cutting.tags[0].id}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (b'{"id": "t"}', "name: (missing) is wrong"),
        (b"nonsense", "value: "),
        (b'{"id": "t", "name": ""}', "name: '' is wrong"),
    ],
)
def test_a_wrong_taxonomy_is_one_line_that_names_the_place(
    tagbus: Cli, cutting: Slice, tmp_path: Path, broken: bytes, expected: str
) -> None:
    tags = tmp_path / "tags.jsonl"
    tags.write_bytes(b'{"id": "a", "name": "bees"}\n' + broken)
    answer = tagbus("tag", cutting.file, "--tags", tags)
    assert answer.code == 2
    assert answer.one_line().startswith(f"tagbus: {tags}:2: {expected}")


def test_an_empty_taxonomy_is_told(tagbus: Cli, cutting: Slice) -> None:
    answer = tagbus("tag", cutting.file, "--tags", "/dev/null")
    assert answer.code == 0
    assert answer.err.splitlines() == ["warning: the taxonomy is empty: no content gets a tag"]
    assert all(one["tags"] == [] for one in objects(answer.out))


def test_a_file_that_is_not_there_is_told_before_the_memory_is_encoded(tagbus: Cli, cutting: Slice) -> None:
    answer = tagbus("tag", "/nowhere.jsonl", *cutting.memory)
    assert answer.code == 2
    assert answer.one_line() == "tagbus: /nowhere.jsonl cannot be read: No such file or directory"


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null"])
def test_a_cache_that_cannot_be_written_is_one_line(tagbus: Cli, cutting: Slice, place: str) -> None:
    answer = tagbus("tag", cutting.file, *cutting.memory[:2], "--cache", place)
    assert answer.code == 2
    assert answer.err.splitlines()[-1].startswith(f"tagbus: {place} cannot store the embeddings: ")
    assert "Traceback" not in answer.err


def test_settings_hold_for_it(tagbus: Cli, cutting: Slice) -> None:
    answer = tagbus("tag", cutting.file, *cutting.memory, TAGGER__TAGS="2", TAGGER__NEIGHBOURS="1")
    for result in objects(answer.out):
        assert len(result["tags"]) <= 2  # type: ignore[arg-type]
        assert all(len(tag["evidence"]["neighbours"]) <= 1 for tag in result["tags"])  # type: ignore[attr-defined]


def test_a_calibration_of_another_pipeline_is_refused(tagbus: Cli, cutting: Slice) -> None:
    given = default_folder() / "calibration.json"
    answer = tagbus(
        "tag", cutting.file, *cutting.memory, TAGGER__CALIBRATION=str(given), COMPONENTS__LITERAL__ENABLED="true"
    )
    assert answer.code == 6
    assert answer.one_line() == (
        f"tagbus: TAGBUS_TAGGER__CALIBRATION: {given} is fitted to 'minilm-l6-f16-1 by recall', but this is "
        "'minilm-l6-f16-1 by recall+literal (literal literal-1-en)'; run `tagbus calibrate` with these settings"
    )


def test_a_folder_without_a_ranker_is_told(tagbus: Cli, cutting: Slice, tmp_path: Path) -> None:
    answer = tagbus("tag", cutting.file, *cutting.memory, COMPONENTS__RANKER__FOLDER=str(tmp_path))
    assert answer.code == 2
    assert str(tmp_path / "ranker.json") in answer.err.splitlines()[-1]
