"""The eight-bit product of `tagbus.stream.dots` as ONNX.

    queries uint8 [n, d] with the zero point 64, rows int8 [d, t] -> products float32 [n, t]

`python -m tagbus.models.export.dots` writes it again.
"""

from typing import Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tagbus.stream.dots import GRAPH, QUERY_STEPS

OPSET: Final = 13
IR: Final = 8


def graph() -> bytes:
    """The serialized model."""
    zero = numpy_helper.from_array(np.array(QUERY_STEPS + 1, np.uint8), "zero")
    queries = helper.make_tensor_value_info("queries", TensorProto.UINT8, ["n", "d"])
    rows = helper.make_tensor_value_info("rows", TensorProto.INT8, ["d", "t"])
    products = helper.make_tensor_value_info("products", TensorProto.FLOAT, ["n", "t"])
    nodes = [
        helper.make_node("MatMulInteger", ["queries", "rows", "zero"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["products"], to=TensorProto.FLOAT),
    ]
    made = helper.make_graph(nodes, "dots", [queries, rows], [products], [zero])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    content: bytes = model.SerializeToString()
    return content


if __name__ == "__main__":
    GRAPH.write_bytes(graph())
