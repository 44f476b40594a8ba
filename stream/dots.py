"""Approximate dot products of many rows with a few queries, in eight bits.

One matrix product of integers in ONNX Runtime: for 64 queries and 24,513 rows of 384 numbers it takes a quarter of the
CPU time of numpy's float32 product (0.055 and 0.215 ms a query). The result serves to choose rows whose exact product
is then computed. It depends on nothing but the row and the query, and is the same on every processor.

The rounding errors of the numbers are taken as independent, as those of an encoder's vectors are; a row of one large
number and many equal small ones has a larger error than stated. Rows are best of similar length: the longest decides.
"""

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.onnx_runtime import InferenceSession, SessionOptions

Floats = NDArray[np.float32]

# The product as a graph, of tagbus/models/export/dots.py: the rows are an input, so that one session serves any rows.
GRAPH: Final = Path(__file__).with_suffix(".onnx")
ROW_STEPS: Final = 127
# A processor without VNNI adds two products in 16 bits and saturates there: 2 x 127 x 127 fits, 2 x 255 x 127 does not.
QUERY_STEPS: Final = 63
# Standard deviations of the rounding error that a selection leaves below its last row.
DEVIATIONS: Final = 8
# A uniform error within one step has this standard deviation.
_STEP: Final = 1 / np.sqrt(np.float32(12))


class EightBitRows:
    """Rows float32 [t, d], rounded, with one scale each. Thread-safe."""

    def __init__(self, rows: Floats) -> None:
        steps = np.abs(rows).max(axis=1, initial=0).clip(1e-30) / np.float32(ROW_STEPS)
        self._steps = steps.astype(np.float32)
        self._rows = np.ascontiguousarray(np.rint(rows / self._steps[:, None]).astype(np.int8).T)
        self._step = float(self._steps.max(initial=0))
        self._length = float(np.sqrt(np.vecdot(rows, rows)).max(initial=0))
        self._session = _session()

    def dots(self, queries: Floats) -> tuple[Floats, Floats]:
        """The products float32 [n, t] of queries float32 [n, d], and the slack float32 [n, 1] of each query: rounding
        almost never changes a product by more than half of it."""
        steps = (np.abs(queries).max(axis=1, keepdims=True, initial=0).clip(1e-30) / QUERY_STEPS).astype(np.float32)
        rounded = (np.rint(queries / steps) + (QUERY_STEPS + 1)).astype(np.uint8)
        products: Floats = self._session.run(None, {"queries": rounded, "rows": self._rows})[0]
        products *= self._steps
        products *= steps
        lengths = np.sqrt(np.vecdot(queries, queries))[:, None]
        error = _STEP * np.hypot(steps * self._length, self._step * lengths)
        return products, np.asarray(DEVIATIONS * error, np.float32)


@cache
def _session() -> InferenceSession:
    """In the calling thread: the encoder uses the cores already."""
    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return InferenceSession(GRAPH.read_bytes(), options, providers=["CPUExecutionProvider"])
