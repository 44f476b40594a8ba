"""Weights and states of runs, each replaced as a whole: a run that is cut off leaves the file before."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from tagbus.stream.errors import UserError, shorten


def save_state(path: Path, state: object) -> None:
    """Write what `torch.load` reads. Raises UserError where it cannot be written."""
    part = path.with_suffix(".part")
    try:
        torch.save(state, part)
    except RuntimeError as error:  # so torch tells a full disk
        part.unlink(missing_ok=True)
        raise _unwritten(path, error) from None
    part.replace(path)


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights in Hugging Face's format. Raises UserError where they cannot be written."""
    part = path.with_suffix(".part")
    try:
        save_file(dict(weights), part, metadata={"format": "pt"})
    except SafetensorError as error:
        part.unlink(missing_ok=True)
        raise _unwritten(path, error) from None
    part.replace(path)


def _unwritten(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} cannot be written, perhaps since its disk is full: {shorten(str(error))}")
