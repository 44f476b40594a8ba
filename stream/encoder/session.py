"""The model in ONNX Runtime, on the first available provider of a list.

ONNX Runtime silently skips a provider that it lacks or whose libraries do not load, and runs on the CPU. This module
logs that, and raises an error unless the list continues.
"""

import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tagbus.stream import telemetry
from tagbus.stream.config import Provider
from tagbus.stream.encoder.base import Vectors
from tagbus.stream.errors import UserError
from tagbus.stream.onnx_runtime import InferenceSession, OrtValue, SessionOptions, onnxruntime

log = logging.getLogger(__name__)

NAMES: Final[dict[Provider, str]] = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
MISSING: Final = "its libraries or a GPU are missing, the log says which"
OUTPUT: Final = "sentence_embedding"
# The fused norm is slower on a CPU: titles took 5.5 ms in float32 without it and 6.2 with it, in int8 2.5 and 2.8.
UNFUSED: Final = ["SkipLayerNormFusion"]
# The shape that TensorRT tunes an engine for: a batch of titles.
USUAL: Final = (32, 32)
Options = dict[str, str]


@dataclass(frozen=True, slots=True)
class Device:
    """Where the model may run: providers in order of preference, and TensorRT's options.

    `fp16`: TensorRT computes in FP16. `engines`: its cache folder of built engines; without one it rebuilds them at
    every start, which takes minutes.
    """

    providers: tuple[Provider, ...] = ("cpu",)
    fp16: bool = False
    engines: Path | None = None


class Session:
    """A loaded model; `provider` is the one it runs on. `run` is thread-safe."""

    def __init__(self, path: Path, device: Device, largest: tuple[int, int]) -> None:
        """`largest`: the number of texts and of tokens of the largest batch on a GPU.

        Raises UserError if no provider is available, with the reason for each.
        """
        self.provider, self._session = _open(path, device, largest)
        self._place = "cpu" if self.provider == "cpu" else "cuda"
        self.width: object = self._session.get_outputs()[0].shape[1]
        telemetry.ENCODER.info({"provider": self.provider, "runtime": onnxruntime.__version__})
        log.info("encoder: ONNX Runtime %s on %s", onnxruntime.__version__, self.provider)

    def run(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Vectors:
        """int64 [texts, tokens] twice to float32 [texts, width].

        Uses IO binding: the inputs are on the device before the run starts, and the output is copied once, after it.
        """
        binding = self._session.io_binding()
        for name, values in (("input_ids", ids), ("attention_mask", mask)):
            binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(values, self._place, 0))
        binding.bind_output(OUTPUT, self._place, 0)
        self._session.run_with_iobinding(binding)
        vectors: Vectors = binding.copy_outputs_to_cpu()[0]
        return vectors


def _open(path: Path, device: Device, largest: tuple[int, int]) -> tuple[Provider, InferenceSession]:
    problems = []
    for provider in device.providers:
        try:
            return provider, _session(path, _stack(provider, device, largest))
        except _Unavailable as error:
            problems.append(f"{provider}: {error}")
            log.warning("encoder: no %s: %s", provider, error)
    there = ", ".join(short for short, name in NAMES.items() if name in onnxruntime.get_available_providers())
    raise UserError(
        f"TAGBUS_ENCODER__PROVIDERS={','.join(device.providers)}: {'; '.join(problems)}; "
        f"ONNX Runtime {onnxruntime.__version__} here was built with {there}"
    )


class _Unavailable(Exception):
    """This provider cannot run here."""


def _session(path: Path, stack: Sequence[tuple[str, Options]]) -> InferenceSession:
    """One thread per run and several runs at once: 384 titles took 1.4 CPU seconds, with one caller or two.

    Two threads inside a run took 2.6, since the idle one spins, and 1.5 without spinning, at the same titles a second.
    """
    wanted = stack[0][0]
    if wanted not in onnxruntime.get_available_providers():
        raise _Unavailable("this ONNX Runtime was built without it")
    if wanted != NAMES["cpu"] and hasattr(onnxruntime, "preload_dlls"):
        # Libraries that pip installs with onnxruntime-gpu[cuda,cudnn] are on no library path. It prints the ones it
        # cannot find.
        with redirect_stdout(sys.stderr):
            onnxruntime.preload_dlls()
    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    try:
        # Its own fallback prints to standard output.
        unfused = UNFUSED if wanted == NAMES["cpu"] else None
        session = InferenceSession(
            path, options, providers=list(stack), enable_fallback=False, disabled_optimizers=unfused
        )
    except Exception as error:  # its errors have no base of their own
        if wanted == NAMES["cpu"]:
            raise
        log.warning("encoder: %s", error)
        raise _Unavailable(MISSING) from None
    if session.get_providers()[0] != wanted:
        raise _Unavailable(MISSING)
    return session


def _stack(provider: Provider, device: Device, largest: tuple[int, int]) -> list[tuple[str, Options]]:
    """The provider, followed by fallbacks for nodes that it does not support.

    Source: onnxruntime.ai, TensorRT and CUDA execution providers, options.
    """
    cpu: tuple[str, Options] = (NAMES["cpu"], {})
    if provider == "cpu":
        return [cpu]
    # TF32 keeps 10 bits of a factor: float32 must be the release's float32.
    cuda: tuple[str, Options] = (NAMES["cuda"], {"use_tf32": "0"})
    if provider == "cuda":
        return [cuda, cpu]
    return [(NAMES["tensorrt"], _tensorrt(device, largest)), cuda, cpu]


def _tensorrt(device: Device, largest: tuple[int, int]) -> Options:
    usual = tuple(min(one, most) for one, most in zip(USUAL, largest, strict=True))
    # One engine for all shapes. Without a profile it is rebuilt for each new shape.
    profile = {
        f"trt_profile_{name}_shapes": ",".join(f"{one}:{texts}x{tokens}" for one in ("input_ids", "attention_mask"))
        for name, (texts, tokens) in (("min", (1, 1)), ("opt", usual), ("max", largest))
    }
    options = {
        **profile,
        "trt_fp16_enable": str(int(device.fp16)),
        # The norms sum hundreds of squares, which FP16 rounds.
        "trt_layer_norm_fp32_fallback": str(int(device.fp16)),
    }
    if device.engines is None:
        return options
    folder = str(device.engines.absolute())
    return options | {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
    }
