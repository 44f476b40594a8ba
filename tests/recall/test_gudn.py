"""The guided classifier as the tagger runs it: what it gives, what is refused, and that retired tags are not given."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the model is written with onnx, of the extra `train`")

from tagbus.stream.config import Settings
from tagbus.stream.encoder.release import MODEL, TOKENIZER, Release, default_folder, load_release
from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.memory import Memory, exact_memory
from tagbus.stream.memory.store import Point
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.component import Surroundings
from tagbus.stream.recall.gudn import COMPONENT
from tagbus.stream.recall.gudn.model import MANIFEST, TEXTS, GuidedRecall, read_manifest
from tagbus.stream.recall.taxonomy.standing import Standing
from tests.recall.gudn_model import KNOWN, write_gudn

LONG = "Soil carbon and the growth of Scots pine. " * 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gudn(tmp_path_factory.mktemp("gudn"), best=8)


async def recall(folder: Path, texts: list[str], threads: int = 1) -> list[dict[str, float]]:
    opened = GuidedRecall.load(folder, threads)
    try:
        found = await opened.recall(Query([], texts, np.zeros((len(texts), 1), np.float32)))
    finally:
        await opened.close()
    return [dict(one) for one in found]


async def test_each_content_gets_its_best_tags_best_first(folder: Path) -> None:
    found = await recall(folder, ["Tea", "", LONG])

    for one in found:
        assert len(one) == 8
        assert set(one) < set(KNOWN)
        assert list(one.values()) == sorted(one.values(), reverse=True)
        assert 0 < sum(one.values()) <= 1


@pytest.mark.parametrize("threads", [1, 3])
async def test_a_text_gets_the_same_among_others_as_alone(folder: Path, threads: int) -> None:
    texts = ["Tea", "", LONG, "A history of fishing rights"] * 40

    together = await recall(folder, texts, threads)

    for text, found in zip(texts[:4], together[:4], strict=True):
        (alone,) = await recall(folder, [text])
        assert found == pytest.approx(alone, abs=1e-6)
    assert together[:4] * 40 == [pytest.approx(one, abs=1e-6) for one in together]


async def test_no_text_has_no_tags(folder: Path) -> None:
    assert await recall(folder, []) == []


async def test_a_retired_tag_is_not_given_whatever_the_model_says(folder: Path) -> None:
    """The set of tags is closed, and memory says which of them are in force: the tagger masks the others."""
    (said,) = await recall(folder, ["A history of fishing rights"])
    memory = exact_memory("r", 2)
    first, *others = said
    points = [Point(tag, np.array([1, 0], np.float32), {"name": tag}) for tag in others]
    await memory.tags.upsert(points)

    (left,) = await Standing(memory.tags).listing([said], None)

    assert dict(left) == {tag: said[tag] for tag in others}
    assert first not in left


async def test_it_is_a_component_with_one_list_and_off_without_a_folder(folder: Path) -> None:
    assert COMPONENT.configure({}).version is None
    configured = COMPONENT.configure({"folder": folder})
    release = load_release(default_folder())

    async def memory(of: Release) -> Memory:
        return exact_memory(of.name, of.dimension)

    part = await configured.open(Surroundings(Settings.model_construct(), release, exact_memory("r", 2), memory))
    assert configured.version == read_manifest(folder).name
    assert [one.name for one in part.recallers] == ["gudn"]
    assert COMPONENT.lists == ("gudn",)
    await part.close()


def test_the_golden_texts_are_asked_in_runs_that_give_them_all(folder: Path) -> None:
    golden = read_manifest(folder).golden
    assert golden is not None
    assert len(golden.tags) == len(TEXTS)
    assert len(set(golden.tags)) == len(TEXTS)


@pytest.mark.parametrize("name", [MODEL, TOKENIZER])
def test_a_file_that_was_changed_is_refused(tmp_path: Path, name: str) -> None:
    made = write_gudn(tmp_path)
    (made / name).write_bytes((made / name).read_bytes() + b" ")
    with pytest.raises(ReleaseMismatch, match=f"{name} has the SHA-256"):
        GuidedRecall.load(made)


@pytest.mark.parametrize("name", [MANIFEST, MODEL, TOKENIZER])
def test_a_file_that_is_missing_is_named_with_the_command(tmp_path: Path, name: str) -> None:
    made = write_gudn(tmp_path)
    (made / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: cannot be read .*expected a file of `tagbus train gudn`"):
        GuidedRecall.load(made)


@pytest.mark.parametrize(("field", "value"), [("name", "../x"), ("best", 0), ("tags", []), ("max_tokens", 513)])
def test_a_wrong_field_is_named(tmp_path: Path, field: str, value: object) -> None:
    made = write_gudn(tmp_path)
    about = json.loads((made / MANIFEST).read_text())
    (made / MANIFEST).write_text(json.dumps(about | {field: value}))
    with pytest.raises(UserError, match=rf"gudn.json: {field}: "):
        GuidedRecall.load(made)
