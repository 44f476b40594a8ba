"""What stands in for Triton's onnxruntime backend where the C++ one is not to be had: a Python-based backend.

`TritonServer` copies this file to backends/onnxruntime/model.py, and a model with `backend: "onnxruntime"` is served by
it as the C++ backend would: it merges the requests that Triton hands over, runs the model once, and where the run fails
all of them fail. It runs in the server's own environment and imports nothing of tagbus.

Source: python_backend, README, "Create Python-based backends" (Triton 2.51).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]

# Triton's name of each type that a text model has.
TYPES = {
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
}


class TritonPythonModel:
    """One instance of a model, in a process of its own."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """The configuration is complete as it stands."""
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the version's model.onnx, and refuse what the configuration does not describe."""
        config = json.loads(args["model_config"])
        name = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _threads(config, "intra_op_thread_count")
        options.inter_op_num_threads = _threads(config, "inter_op_thread_count")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._inputs = {one["name"]: TYPES[one["data_type"]] for one in config["input"]}
        self._outputs = [one["name"] for one in config["output"]]
        self._match("input", set(self._inputs), {one.name for one in self._session.get_inputs()})
        self._match("output", set(self._outputs), {one.name for one in self._session.get_outputs()})

    def execute(self, requests: list[Any]) -> list[Any]:
        """One run for all requests, which Triton has merged by their shape; one response for each.

        What the model raises is let through: Triton then fails every request of the run. Error responses made here
        crashed the server (signal 11) as soon as there were two of them.
        """
        parts = {
            name: [pb_utils.get_input_tensor_by_name(one, name).as_numpy() for one in requests] for name in self._inputs
        }
        feed = {name: np.concatenate(arrays).astype(self._inputs[name], copy=False) for name, arrays in parts.items()}
        found = self._session.run(self._outputs, feed)
        ends = np.cumsum([len(array) for array in next(iter(parts.values()))])[:-1]
        split = [np.split(array, ends) for array in found]
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor(name, np.ascontiguousarray(part))
                    for name, part in zip(self._outputs, row, strict=True)
                ]
            )
            for row in zip(*split, strict=True)
        ]

    def _match(self, kind: str, configured: set[str], there: set[str]) -> None:
        if not configured <= there or (kind == "input" and configured != there):
            raise pb_utils.TritonModelException(
                f"the configuration has the {kind}s {sorted(configured)}, the model has {sorted(there)}"
            )


def _threads(config: dict[str, Any], name: str) -> int:
    """0, the default, leaves the number to ONNX Runtime."""
    return int(config.get("parameters", {}).get(name, {}).get("string_value", "0"))
