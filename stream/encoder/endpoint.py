"""One Triton server: tensors in, tensors out, and its many ways to fail sorted into five.

gRPC status codes alone do not tell them apart: UNAVAILABLE is the status of a server that is down, and of one whose
queue is full.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tagbus.stream.config import EncoderSettings
from tagbus.stream.errors import ReleaseMismatch, UserError, shorten

# Share of a request's time that it may spend in Triton's queue.
QUEUED: Final = 0.5
# Triton's messages may contain a trace of many lines.
WORDS: Final = 300
# The message of Triton 2.51 with UNAVAILABLE when it is healthy and refuses a request.
FULL: Final = re.compile("Exceeds maximum queue size|Request timeout expired")
# Its message with INTERNAL when the process behind a Python model has died: no text is at fault. This lasts until the
# model is loaded again, and until then the server reports itself and the model ready.
DEAD: Final = re.compile("Stub process .* is not healthy")
# gRPC waits up to two minutes before it retries a server that was down; a restart takes 5 to 10 s.
CHANNEL: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Of the environment: contents go to the servers of the settings alone.
    ("grpc.enable_http_proxy", 0),
)


# The first axis of each tensor is the batch.
Tensors = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The model that servers must have: its display name, and each output's type and shape without the batch."""

    name: str
    outputs: Mapping[str, tuple[str, tuple[int, ...]]]


class Down(Exception):
    """The server, or its model, is down."""


class Late(Exception):
    """The server did not answer in time: it hangs, or it is overloaded."""


class Busy(Exception):
    """The server refused the request because its queue is full, or the request expired there."""


class Failed(Exception):
    """The model failed on the batch: on this one, or on one that Triton had merged with it."""


class Endpoint:
    """The model of the settings on one server."""

    def __init__(self, place: str, host: str, settings: EncoderSettings, wanted: Wanted) -> None:
        """`place` is ip:port, `host` the name that it was found under, which its certificate must have.

        Raises UserError where a file of the TLS settings cannot be read.
        """
        self.place = place
        self.name = f"{place} model {settings.model} version {settings.version}"
        self._settings = settings
        self._wanted = wanted
        self._outputs = [InferRequestedOutput(name) for name in wanted.outputs]
        named = (("grpc.ssl_target_name_override", host),) if settings.tls else ()
        try:
            self._client = InferenceServerClient(
                place,
                ssl=settings.tls,
                root_certificates=_name(settings.tls_ca),
                private_key=_name(settings.tls_key),
                certificate_chain=_name(settings.tls_certificate),
                channel_args=[*CHANNEL, *named],
            )
        except OSError as error:
            raise UserError(f"{error.filename}: {error.strerror}; expected a PEM file (encoder.tls_*)") from None

    async def infer(self, feed: Tensors, seconds: float) -> Tensors:
        """The wanted outputs, as many rows as the inputs have, each number finite.

        Raises Down, Late, Busy or Failed, and ReleaseMismatch if another model answers.
        """
        try:
            result = await self._client.infer(
                self._settings.model,
                [_tensor(name, values) for name, values in feed.items()],
                model_version=str(self._settings.version),
                outputs=self._outputs,
                # Triton refuses requests that waited longer than this in its queue. A request that it begins must still
                # finish in time: with the whole deadline, an overloaded server mostly computed results that no caller
                # waited for any more.
                timeout=int(QUEUED * seconds * 1e6),
                client_timeout=seconds,
            )
        except InferenceServerException as error:
            raise self._sorted(error) from None
        rows = len(next(iter(feed.values())))
        return {name: self._output(name, result, rows) for name in self._wanted.outputs}

    async def close(self) -> None:
        """Close the channel. No call may be in flight."""
        await self._client.close()

    def _output(self, name: str, result: InferResult, rows: int) -> NDArray[np.generic]:
        values: NDArray[np.generic] | None = result.as_numpy(name)
        kind, axes = self._wanted.outputs[name]
        shape = (rows, *axes)
        # A server's Python with numpy 2 answers with empty outputs and no error.
        if values is None or values.shape != shape or values.dtype != kind:
            found = "nothing" if values is None else f"{values.dtype} {list(values.shape)}"
            raise ReleaseMismatch(
                f"{self.name} gives {found} as {name}, expected {kind} {list(shape)} of {self._wanted.name}"
            )
        if not np.isfinite(values).all():
            raise Failed(f"{self.name} gives a number in {name} that is not finite")
        return values

    def _sorted(self, error: InferenceServerException) -> Exception:
        status, words = str(error.status()).removeprefix("StatusCode."), str(error.message())
        said = f"{self.name}: {status}: {shorten(words, WORDS)}"
        if status == "RESOURCE_EXHAUSTED" or (status == "UNAVAILABLE" and FULL.search(words)):
            return Busy(said)
        if status == "DEADLINE_EXCEEDED":
            return Late(said)
        if status in {"NOT_FOUND", "INVALID_ARGUMENT", "UNIMPLEMENTED"}:
            return ReleaseMismatch(f"{said}; expected {self._wanted.name}")
        if status in {"INTERNAL", "UNKNOWN"} and not DEAD.search(words):
            return Failed(said)
        return Down(said)


def _tensor(name: str, values: NDArray[np.generic]) -> InferInput:
    tensor = InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    tensor.set_data_from_numpy(values)
    return tensor


def _name(path: Path | None) -> str | None:
    return None if path is None else str(path)
