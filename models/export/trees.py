"""LightGBM's gradient-boosted trees as one ONNX graph.

onnxmltools rounds thresholds to the nearest float32. If that is larger, a feature in between takes the other
branch. Here thresholds are rounded down, so `x <= threshold` is true for the same float32 x. Several models become one
weighted ensemble.
"""

from collections.abc import Iterator, Sequence
from typing import Final, TypedDict, cast

import numpy as np
from lightgbm import Booster
from onnx import TensorProto, helper

from tagbus.stream.rank.trees import INPUT

OPSET: Final = 17
ML_OPSET: Final = 3
# LightGBM's missing_type of a split whose training data had no missing values.
NO_MISSING: Final = "None"


class Node(TypedDict, total=False):
    """A node of `Booster.dump_model`."""

    split_feature: int
    threshold: float
    decision_type: str
    default_left: bool
    missing_type: str
    left_child: "Node"
    right_child: "Node"
    leaf_value: float


Attributes = dict[str, list[int] | list[float] | list[str]]


def to_onnx(models: Sequence[tuple[Booster, float]], features: int) -> bytes:
    """A graph from features float32 [m, f] to the weighted sum float32 [m, 1] of the models' raw scores.

    NaN takes the same branch as in LightGBM. Raises ValueError for a split that is not numerical.
    """
    nodes: dict[str, list[int] | list[float] | list[str]] = {}
    tree = 0
    for booster, weight in models:
        for info in booster.dump_model()["tree_info"]:
            for name, value in _flat(cast(Node, info["tree_structure"]), tree, weight):
                nodes.setdefault(name, []).append(value)  # type: ignore[arg-type]
            tree += 1
    ensemble = helper.make_node(
        "TreeEnsembleRegressor",
        [INPUT],
        ["scores"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        **nodes,  # type: ignore[arg-type]
    )
    graph = helper.make_graph(
        [ensemble],
        "ranker",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["candidates", features])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["candidates", 1])],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    )
    model.ir_version = 9
    return cast(bytes, model.SerializeToString())


def _flat(root: Node, tree: int, weight: float) -> Iterator[tuple[str, int | float | str]]:
    """The node attributes of one tree, numbered in order of traversal."""
    todo, numbered = [(root, 0)], 1
    while todo:
        node, number = todo.pop()
        leaf = "left_child" not in node
        left, right = (0, 0) if leaf else (numbered, numbered + 1)
        yield "nodes_treeids", tree
        yield "nodes_nodeids", number
        yield "nodes_featureids", 0 if leaf else node["split_feature"]
        yield "nodes_modes", "LEAF" if leaf else "BRANCH_LEQ"
        yield "nodes_values", 0.0 if leaf else _down(node)
        yield "nodes_truenodeids", left
        yield "nodes_falsenodeids", right
        yield "nodes_missing_value_tracks_true", 0 if leaf else int(_missing_left(node))
        if leaf:
            yield "target_treeids", tree
            yield "target_nodeids", number
            yield "target_ids", 0
            yield "target_weights", node["leaf_value"] * weight
        else:
            todo += [(node["left_child"], left), (node["right_child"], right)]
            numbered += 2


def _down(node: Node) -> float:
    """The largest float32 up to the threshold."""
    if node["decision_type"] != "<=":
        raise ValueError(f"a split by {node['decision_type']}, expected <=")
    threshold = float(node["threshold"])
    # A split of missing from present values is at the largest float64, which becomes the largest float32.
    with np.errstate(over="ignore"):
        rounded = np.float32(threshold)
    return float(np.nextafter(rounded, np.float32(-np.inf)) if float(rounded) > threshold else rounded)


def _missing_left(node: Node) -> bool:
    """Whether NaN goes left: without missing values in training, LightGBM treats it as 0."""
    return float(node["threshold"]) >= 0 if node["missing_type"] == NO_MISSING else node["default_left"]
