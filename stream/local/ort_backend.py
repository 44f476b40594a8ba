"""A Python replacement for Triton's onnxruntime backend, for environments without the C++ one.

`TritonServer` copies this file to backends/onnxruntime/model.py. It serves models with `backend: "onnxruntime"` like
the C++ backend: it merges the requests that Triton passes, runs the model once, and if the run fails, all of them fail.
It runs in the server's own environment and imports nothing from tagbus.

Source: python_backend, README, "Create Python-based backends" (Triton 2.51).
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

# Before the import, which otherwise writes to the home directory and looks up a host of its vendor.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]

# Triton's names of the tensor types that text models use.
TYPES = {
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
}


class TritonPythonModel:
    """One instance of a model, in its own process."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """The configuration is used unchanged."""
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the version's model.onnx, and reject a configuration that does not match it."""
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
        """Run the model once for all requests, which Triton has grouped by shape; one response per request.

        Exceptions of the model propagate: Triton then fails every request of the run. Error responses created here
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
    """The number of threads; 0, the default, leaves it to ONNX Runtime."""
    return int(config.get("parameters", {}).get(name, {}).get("string_value", "0"))
