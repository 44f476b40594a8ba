"""Classifier heads as the tagger runs them: results, the effect of padding, and refusals.

The model is a plain one, written out here without any training: each tag's vector is one axis.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="heads are written with onnx, of the extra `train`")

from tagbus.models.export.heads_graph import Weights, to_onnx  # noqa: E402
from tagbus.stream.config import Settings  # noqa: E402
from tagbus.stream.encoder.release import (  # noqa: E402
    Release,
    default_folder,
    load_release,
    sha256,
)
from tagbus.stream.errors import ReleaseMismatch, UserError  # noqa: E402
from tagbus.stream.memory import Memory, exact_memory  # noqa: E402
from tagbus.stream.recall.base import Query  # noqa: E402
from tagbus.stream.recall.classifier import model as classifier  # noqa: E402
from tagbus.stream.recall.classifier.model import cut  # noqa: E402
from tagbus.stream.recall.component import Surroundings  # noqa: E402
from tagbus.stream.recall.heads import COMPONENT  # noqa: E402
from tagbus.stream.recall.heads import model as heads  # noqa: E402
from tagbus.stream.recall.heads.model import HeadsRecall, Manifest, name_of  # noqa: E402
from tagbus.stream.recall.words import TERMS, Vocabulary  # noqa: E402

D = 4
TAGS = ("t-fire", "t-soil", "t-zebra", "t-vector")
WORDS = ("fire", "soil", "zebra")
VOCABULARY = Vocabulary((5, 5, 5), 10, WORDS)
# The vector says `t-vector` only.
VECTOR = np.eye(D, dtype=np.float32)[3]


def surroundings() -> Surroundings:
    """Of a component of release r1."""
    release = load_release(default_folder()).model_copy(update={"name": "r1", "dimension": D})

    async def memory(of: Release) -> Memory:
        return exact_memory(of.name, of.dimension)

    return Surroundings(Settings.model_construct(), release, exact_memory("r1", D), memory)


def weights() -> Weights:
    eye, none = np.eye(D, dtype=np.float32), np.zeros(D, np.float32)
    return Weights(eye[:3], eye, eye, none, 0 * eye, none, eye, none, scale=20.0)


def write(folder: Path, best: int = 3, release: str = "r1") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    model = to_onnx(weights(), best, "int8").SerializeToString(deterministic=True)
    words = VOCABULARY.dump()
    manifest = Manifest(
        name=name_of(model, words, TAGS),
        release=release,
        dimension=D,
        best=best,
        precision="int8",
        model_sha256=sha256(model),
        words_sha256=sha256(words),
        fitted_on=10,
        tags=TAGS,
    )
    (folder / heads.MODEL).write_bytes(model)
    (folder / heads.WORDS).write_bytes(words)
    (folder / heads.MANIFEST).write_text(manifest.model_dump_json())
    return folder


async def recall(folder: Path, texts: list[str], threads: int = 1) -> list[dict[str, float]]:
    recaller = HeadsRecall.load(folder, "r1", threads)
    try:
        found = await recaller.recall(Query([], texts, np.tile(VECTOR, (len(texts), 1))))
    finally:
        await recaller.close()
    return [dict(one) for one in found]


async def test_a_content_gets_the_tags_of_its_words_and_of_its_vector_best_first(tmp_path: Path) -> None:
    (found,) = await recall(write(tmp_path), ["Fire, fire! And soil."])

    assert list(found)[1:] == ["t-fire", "t-soil"]
    assert next(iter(found)) == "t-vector"
    assert 1 >= sum(found.values()) > 0.99
    assert list(found.values()) == sorted(found.values(), reverse=True)


async def test_a_text_without_a_known_word_has_its_vector_alone(tmp_path: Path) -> None:
    found = await recall(write(tmp_path), ["", "森林", "\ud800"])

    assert all(next(iter(one)) == "t-vector" and one["t-vector"] > 0.99 for one in found)


async def test_no_text_has_no_tags(tmp_path: Path) -> None:
    assert await recall(write(tmp_path), []) == []


@pytest.mark.parametrize("threads", [1, 3])
async def test_a_text_gets_the_same_among_others_as_alone(tmp_path: Path, threads: int) -> None:
    folder = write(tmp_path)
    texts = ["fire", "", "soil fire zebra " * 50, "zebra"] * 40

    together = await recall(folder, texts, threads)

    for text, found in zip(texts[:4], together[:4], strict=True):
        (alone,) = await recall(folder, [text])
        assert found == pytest.approx(alone, abs=1e-6)
    assert together[:4] * 40 == [pytest.approx(one, abs=1e-6) for one in together]


def test_runs_hold_each_content_once_and_are_bounded() -> None:
    lengths = np.random.default_rng(0).integers(0, TERMS + 1, 1000)

    runs = list(cut(lengths))

    assert sorted(row for rows, _ in runs for row in rows.tolist()) == list(range(1000))
    for rows, length in runs:
        assert lengths[rows].max() <= length <= TERMS
        assert len(rows) <= classifier.CONTENTS
        assert len(rows) * length <= max(classifier.RUN_TERMS, length)


def test_heads_of_another_release_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, release="r2")

    with pytest.raises(ReleaseMismatch, match="was trained over release 'r2', but this is 'r1'"):
        HeadsRecall.load(folder, "r1")


@pytest.mark.parametrize("name", [heads.MODEL, heads.WORDS])
def test_a_file_that_was_changed_is_refused(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path)
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")

    with pytest.raises(ReleaseMismatch, match=f"{name} has the SHA-256"):
        HeadsRecall.load(folder, "r1")


@pytest.mark.parametrize("name", [heads.MANIFEST, heads.MODEL, heads.WORDS])
def test_a_file_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path)
    (folder / name).unlink()

    with pytest.raises(UserError, match=rf"{name}: cannot be read \(No such file"):
        HeadsRecall.load(folder, "r1")


@pytest.mark.parametrize(("field", "value"), [("name", "../x"), ("best", 0), ("tags", []), ("model_sha256", "abc")])
def test_a_wrong_field_is_named(tmp_path: Path, field: str, value: object) -> None:
    folder = write(tmp_path)
    about = json.loads((folder / heads.MANIFEST).read_text())
    (folder / heads.MANIFEST).write_text(json.dumps(about | {field: value}))

    with pytest.raises(UserError, match=rf"heads.json: {field}: "):
        HeadsRecall.load(folder, "r1")


async def test_on_triton_without_its_client_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "recall.heads.triton",
        "recall.classifier.triton",
        "encoder.client",
        "encoder.balance",
        "encoder.endpoint",
    ):
        monkeypatch.delitem(sys.modules, f"tagbus.stream.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    section = COMPONENT.section({"kind": "triton", "folder": write(tmp_path)})
    with pytest.raises(
        UserError, match=r"TAGBUS_COMPONENTS__HEADS__KIND=triton needs .*pip install 'tagbus\[triton\]'"
    ):
        await COMPONENT.open(section, surroundings())
