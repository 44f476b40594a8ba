"""From settings to the encoder of a worker."""

import asyncio
from pathlib import Path

from tagbus.stream.config import EncoderSettings
from tagbus.stream.encoder.base import Encoder
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.session import Device
from tagbus.stream.errors import UserError


async def open_encoder(settings: EncoderSettings, folder: Path) -> Encoder:
    """The encoder that the settings name; `folder` holds the release.

    Raises ReleaseMismatch where model, tokenizer or server are not of the release, DependencyDown where Triton does not
    answer, UserError for settings that lead nowhere.
    """
    if settings.kind == "in_process":
        device = Device(settings.providers, settings.fp16, settings.engines)
        # It reads and compiles for a second, on a GPU for minutes, and other batches go on meanwhile.
        return await asyncio.to_thread(OnnxEncoder, folder, settings.threads, device=device)
    try:
        from tagbus.stream.encoder.triton import TritonEncoder
    except ImportError as error:
        raise without_client("TAGBUS_ENCODER__KIND", error) from None
    return await TritonEncoder.open(folder, settings)


def without_client(variable: str, error: ImportError) -> UserError:
    """What is wrong with `variable` set to triton where Triton's client is not installed."""
    return UserError(f"{variable}=triton needs tritonclient ({error}): pip install 'tagbus[triton]'")
