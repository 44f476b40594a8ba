"""Open the configured encoder."""

import asyncio
from pathlib import Path

from tagbus.stream.config import EncoderSettings
from tagbus.stream.encoder.base import Encoder
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.session import Device
from tagbus.stream.errors import UserError


async def open_encoder(settings: EncoderSettings, folder: Path) -> Encoder:
    """Open the configured encoder; `folder` holds the release.

    Raises ReleaseMismatch if model, tokenizer or server are not of the release, DependencyDown if Triton does not
    answer, UserError for invalid settings.
    """
    if settings.kind == "in_process":
        device = Device(settings.providers, settings.fp16, settings.engines)
        # In a thread: loading takes a second, on a GPU minutes of compilation, and other batches continue meanwhile.
        return await asyncio.to_thread(OnnxEncoder, folder, settings.threads, device=device)
    try:
        from tagbus.stream.encoder.triton import TritonEncoder
    except ImportError as error:
        raise without_client("TAGBUS_ENCODER__KIND", error) from None
    return await TritonEncoder.open(folder, settings)


def without_client(variable: str, error: ImportError) -> UserError:
    """The error for `variable` set to triton without Triton's client installed."""
    return UserError(f"{variable}=triton needs tritonclient ({error}): pip install 'tagbus[triton]'")
