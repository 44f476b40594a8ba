"""Classifier heads as ONNX: the computation of `tagbus.models.train.heads.Heads` without torch, with small tables.

    terms int64 [n, l], weights float32 [n, l], vectors float32 [n, d]
    -> tags int64 [n, k], chances float32 [n, k]: the k most probable tags, best first

The graph is built by hand: it has 20 nodes, and the tables keep their own precision.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Precision = Literal["float32", "float16", "int8"]
Floats = NDArray[np.float32]

# 20 is the first with Gelu; ONNX Runtime supports it since 1.17.
OPSET: Final = 20
IR: Final = 9


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of trained heads, float32, transposed for row vectors.

    `bag` [terms, d], `project`, `inner`, `outer` [d, d], `inner_bias`, `outer_bias` [d], `tags` [t, d], `bias` [t].
    Content vectors have length `scale`.
    """

    bag: Floats
    project: Floats
    inner: Floats
    inner_bias: Floats
    outer: Floats
    outer_bias: Floats
    tags: Floats
    bias: Floats
    scale: float


def quantised(rows: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Each row as int8 [n, d] and a scale float32 [n]: symmetric, by the row's largest magnitude."""
    scales = np.maximum(np.abs(rows).max(axis=1), 1e-12) / 127
    return np.rint(rows / scales[:, None]).astype(np.int8), scales.astype(np.float32)


def to_onnx(weights: Weights, best: int, precision: Precision) -> onnx.ModelProto:
    """The model. `precision` is that of the two tables; all sums are float32.

    int8 tables are a quarter of the float32 size. ONNX Runtime converts the tag table to float32 at load time; rows of
    the bag are converted as they are looked up.
    """
    graph = _Graph()
    dimension = weights.bag.shape[1]
    spread = graph.node("Unsqueeze", [graph.scaled_terms(weights.bag, precision), graph.ints("axis", [1])])
    rows = graph.node("Cast", [graph.node("Gather", ["bag", "terms"])], to=TensorProto.FLOAT)
    bag = graph.node("Squeeze", [graph.node("MatMul", [spread, rows]), "axis"])
    vectors = graph.node("MatMul", ["vectors", graph.table("project", weights.project)])
    hidden = graph.node("Add", [bag, vectors])
    inner = graph.node("Gelu", [graph.dense(hidden, "inner", weights.inner, weights.inner_bias)])
    outer = graph.dense(inner, "outer", weights.outer, weights.outer_bias)
    content = graph.node("LpNormalization", [graph.node("Add", [hidden, outer])], axis=1, p=2)
    logits = graph.node("Add", [graph.tag_logits(content, weights, precision), graph.table("bias", weights.bias)])
    chances = graph.node("Softmax", [logits], axis=1)
    count = min(best, len(weights.tags))
    graph.put("TopK", [chances, graph.ints("best", [count])], ["chances", "tags"], axis=1, largest=1, sorted=1)
    return graph.model(dimension, count)


class _Graph:
    """Collects nodes and tables."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._tables: list[onnx.TensorProto] = []

    def table(self, name: str, values: NDArray[np.generic]) -> str:
        self._tables.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def ints(self, name: str, values: list[int]) -> str:
        return self.table(name, np.array(values, np.int64))

    def put(self, operator: str, inputs: list[str], outputs: list[str], **attributes: int) -> None:
        node = helper.make_node(operator, inputs, outputs, f"{operator}_{len(self._nodes)}")
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self._nodes.append(node)

    def node(self, operator: str, inputs: list[str], **attributes: int) -> str:
        output = f"{operator.lower()}_{len(self._nodes)}"
        self.put(operator, inputs, [output], **attributes)
        return output

    def dense(self, x: str, name: str, weight: Floats, bias: Floats) -> str:
        product = self.node("MatMul", [x, self.table(name, weight)])
        return self.node("Add", [product, self.table(f"{name}_bias", bias)])

    def scaled_terms(self, bag: Floats, precision: Precision) -> str:
        """Add the bag's table. Returns the weights [n, l] that its rows are summed with."""
        if precision != "int8":
            self.table("bag", bag.astype(precision))
            return "weights"
        rows, scales = quantised(bag)
        self.table("bag", rows)
        return self.node("Mul", ["weights", self.node("Gather", [self.table("bag_scales", scales), "terms"])])

    def tag_logits(self, content: str, weights: Weights, precision: Precision) -> str:
        """The logits of all contents and tags, without the bias."""
        if precision != "int8":
            turned = (weights.scale * weights.tags.T).astype(precision)
            return self.node("MatMul", [content, self._float("tags_table", turned)])
        rows, scales = quantised(weights.tags)
        product = self.node("MatMul", [content, self._float("tags_table", rows.T)])
        return self.node("Mul", [product, self.table("tags_scales", weights.scale * scales)])

    def _float(self, name: str, values: NDArray[np.generic]) -> str:
        return self.node("Cast", [self.table(name, values)], to=TensorProto.FLOAT)

    def model(self, dimension: int, best: int) -> onnx.ModelProto:
        graph = helper.make_graph(
            self._nodes,
            "heads",
            [
                helper.make_tensor_value_info("terms", TensorProto.INT64, ["contents", "length"]),
                helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["contents", "length"]),
                helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["contents", dimension]),
            ],
            [
                helper.make_tensor_value_info("tags", TensorProto.INT64, ["contents", best]),
                helper.make_tensor_value_info("chances", TensorProto.FLOAT, ["contents", best]),
            ],
            self._tables,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        onnx.checker.check_model(model, full_check=True)
        return model


def weights_of(state: Mapping[str, Floats], scale: float) -> Weights:
    """The weights from the state dict of a `Heads` module, as arrays."""
    return Weights(
        bag=state["bag.weight"],
        project=state["project.weight"].T,
        inner=state["inner.weight"].T,
        inner_bias=state["inner.bias"],
        outer=state["outer.weight"].T,
        outer_bias=state["outer.bias"],
        tags=state["names"] + state["free"],
        bias=state["bias"],
        scale=scale,
    )
