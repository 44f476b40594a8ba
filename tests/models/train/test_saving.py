"""Weights and states on a disk that is full."""

import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tagbus.models.train.saving import save_state, save_weights
from tagbus.stream.errors import UserError

WEIGHTS = {"a": torch.zeros(100_000)}


@contextmanager
def full(size: int) -> Iterator[None]:
    """No file grows beyond `size`, as on a disk without more room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("save", [save_state, save_weights])
def test_a_full_disk_is_told_and_leaves_what_was_there(
    save: Callable[[Path, Mapping[str, Tensor]], None], tmp_path: Path
) -> None:
    path = tmp_path / "state.pt"
    save(path, {"a": torch.ones(1)})
    before = path.read_bytes()
    with full(10_000), pytest.raises(UserError, match=r"state.pt cannot be written, perhaps since its disk is full: "):
        save(path, WEIGHTS)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["state.pt"]
