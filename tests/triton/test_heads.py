"""Classifier heads on a real tritonserver give what they give in the process."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput

from tagbus.stream.local.triton import TritonServer, default_repository
from tagbus.stream.recall.heads import CONTENTS, LENGTHS, MANIFEST, MODEL, OnnxModel, cut, read_manifest
from tests.triton.harness import Config, edit_config, read_config

FOLDER = default_repository() / "heads"
CONFIG = read_config(FOLDER / "config.pbtxt")
VERSIONS = list(CONFIG.version_policy.specific.versions)


def batch(contents: int, length: int) -> dict[str, NDArray[Any]]:
    """Drawn bags: the last content has no term."""
    draw = np.random.default_rng(length)
    weights = draw.random((contents, length), np.float32)
    weights[-1] = 0
    vectors = draw.normal(size=(contents, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return {"terms": draw.integers(0, 100, (contents, length)), "weights": weights, "vectors": vectors}


def test_the_configuration_is_that_of_the_heads_beside_it() -> None:
    (version,) = VERSIONS
    manifest = read_manifest(FOLDER / str(version))
    assert CONFIG.default_model_filename == MODEL
    assert [one.name for one in CONFIG.input] == ["terms", "weights", "vectors"]
    assert list(CONFIG.input[2].dims) == [manifest.dimension]
    assert {one.name: list(one.dims) for one in CONFIG.output} == {"tags": [manifest.best], "chances": [manifest.best]}
    runs = list(cut(np.repeat(LENGTHS, 100)))
    assert max(len(rows) for rows, _ in runs) == CONTENTS == CONFIG.max_batch_size
    assert {one.batch_size for one in CONFIG.model_warmup} <= set(range(1, CONTENTS + 1))


@pytest.mark.parametrize("length", [8, 64])
def test_triton_gives_what_the_process_gives(served: TritonServer, length: int) -> None:
    feed = batch(5, length)
    model = OnnxModel((FOLDER / str(VERSIONS[0]) / MODEL).read_bytes())
    numbers, chances = asyncio.run(model.run(**feed))

    inputs = []
    for name, values in feed.items():
        inputs.append(InferInput(name, list(values.shape), "INT64" if name == "terms" else "FP32"))
        inputs[-1].set_data_from_numpy(values)
    with InferenceServerClient(served.address) as client:
        found = client.infer("heads", inputs, model_version=str(VERSIONS[0]))

    assert found.as_numpy("chances") == pytest.approx(chances, abs=1e-6)
    assert (found.as_numpy("tags")[:, 0] == numbers[:, 0]).all()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server with the heads alone, without their warm-up."""
    folder: Path = tmp_path_factory.mktemp("heads")
    shutil.copytree(FOLDER, folder / "heads", ignore=shutil.ignore_patterns(MANIFEST))

    def slim(config: Config) -> None:
        del config.model_warmup[:]

    edit_config(folder, "heads", slim)
    with TritonServer(folder, ("heads",)) as server:
        yield server
