"""One encoder for all tests of this folder: the packaged model."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.release import GOLDEN, MODEL, RELEASE, TOKENIZER, default_folder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def encoder() -> AsyncIterator[OnnxEncoder]:
    encoder = OnnxEncoder(default_folder())
    yield encoder
    await encoder.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the model folder that a test may damage."""
    for name in (MODEL, TOKENIZER, GOLDEN, RELEASE):
        (tmp_path / name).write_bytes((default_folder() / name).read_bytes())
    return tmp_path
