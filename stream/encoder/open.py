"""Open the configured encoder."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tagbus.stream.config import PREFIX, EncoderSettings
from tagbus.stream.encoder.base import Encoder
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.session import Device
from tagbus.stream.errors import UserError


@dataclass(frozen=True, slots=True)
class Origin:
    """The names of the settings of a model, for errors: the variable of its kind, and the setting of its address."""

    kind: str = f"{PREFIX}ENCODER__KIND"
    address: str = "encoder.address"

    def without_client(self, error: ImportError) -> UserError:
        """The error for kind triton without Triton's client installed."""
        return UserError(f"{self.kind}=triton needs tritonclient ({error}): pip install 'tagbus[triton]'")


RELEASE: Final = Origin()


async def open_encoder(settings: EncoderSettings, folder: Path, origin: Origin = RELEASE) -> Encoder:
    """Open the configured encoder; `folder` holds its release, `origin` names the settings for errors.

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
        raise origin.without_client(error) from None
    return await TritonEncoder.open(folder, settings, origin.address)
