"""int8: each product equals the same arithmetic in numpy, and vectors do not depend on their batch."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tagbus.models.export.encoder import export
from tagbus.models.export.int8 import channels, to_int8
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.release import default_folder, load_release
from tagbus.stream.onnx_runtime import onnxruntime

WEIGHT = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)


def product(weight: NDArray[np.float32]) -> onnx.ModelProto:
    """float32 [n, l, d] times a weight [d, m], and a bias."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "l", weight.shape[0]])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "l", weight.shape[1]])]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def run(proto: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"x": x})[0])


def by_hand(x: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float64]:
    """A scale per token and per channel, integer sums."""
    scale = np.maximum(np.abs(x).max(axis=-1, keepdims=True), 1e-12) / 127
    columns = np.maximum(np.abs(weight).max(axis=0), 1e-12) / 127
    return (np.rint(x / scale) @ np.rint(weight / columns)) * scale * columns


@settings(max_examples=50)
@given(arrays(np.float32, (2, 3, 24), elements=st.floats(-50, 50, width=32)))
def test_a_product_is_that_of_quantised_numbers(x: NDArray[np.float32]) -> None:
    found = run(to_int8(product(WEIGHT)), x)
    # A value between two steps may round to either; a step of a product is 1/127 of both maxima.
    step = np.abs(x).max(axis=-1, keepdims=True) / 127 * np.abs(WEIGHT).max(axis=0)
    assert (np.abs(found - by_hand(x, WEIGHT)) <= 1.01 * step + 1e-6).all()


def test_a_token_does_not_change_another() -> None:
    """Given another token a thousand times as large, then the product of a token does not change."""
    small, large = (size * np.random.default_rng(1).normal(size=(1, 1, 24)).astype(np.float32) for size in (1, 1000))
    model = to_int8(product(WEIGHT))
    together = run(model, np.concatenate([small, large], axis=1))
    np.testing.assert_array_equal(together[:, :1], run(model, small))


def test_nothing_stays_nothing() -> None:
    assert not run(to_int8(product(np.zeros((24, 5), np.float32))), np.ones((1, 1, 24), np.float32)).any()
    assert not run(to_int8(product(WEIGHT)), np.zeros((1, 1, 24), np.float32)).any()


def test_a_channel_has_its_own_scale() -> None:
    values, scales = channels(np.array([[1, 100], [-0.5, 50]], np.float32))
    np.testing.assert_array_equal(values, [[127, 127], [-64, 64]])
    np.testing.assert_allclose(scales, [1 / 127, 100 / 127], rtol=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8")
    export(path, "int8")
    return path


async def test_an_encoder_in_eight_bits_is_near_the_shipped_one(folder: Path) -> None:
    """Given titles, then vectors do not depend on the batch and are close to float16, with its recall defaults."""
    texts = [f"{word} in Finland, {year}" for word in ("Fishing", "Schools", "Law") for year in range(1900, 1910)]
    shipped, small = OnnxEncoder(default_folder()), OnnxEncoder(folder)
    try:
        together = await small.encode([*texts, "Soil carbon and the growth of pine. " * 40])
        alone = np.concatenate([await small.encode([text]) for text in texts])
        exact = await shipped.encode(texts)
    finally:
        await shipped.close()
        await small.close()
    np.testing.assert_allclose(together[:-1], alone, atol=1e-6)
    # The mean over 1,024 titles is 0.9973 with VNNI; without it int8 products are less exact.
    assert (alone * exact).sum(axis=1).mean() > (0.99 if "vnni" in _flags() else 0.95)
    assert (folder / "model.onnx").stat().st_size < 36e6
    assert load_release(folder).recall == load_release(default_folder()).recall


def _flags() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""
