"""A real tritonserver for the tests: one for the whole run, and others of a test's own."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tagbus.stream.config import EncoderSettings
from tagbus.stream.encoder.balance import Resolve, resolve
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.release import default_folder
from tagbus.stream.encoder.triton import TritonEncoder
from tagbus.stream.local.triton import TritonServer, available
from tests.triton.harness import add_stranger, copy_learnt, copy_repository, settings

Start = Callable[..., TritonServer]
Open = Callable[..., Awaitable[TritonEncoder]]


@pytest.fixture(scope="session", autouse=True)
def can_run() -> None:
    """Where there is no server for this machine the tests are skipped, and fail when CI=true."""
    reason = available()
    if reason:
        (pytest.fail if os.environ.get("CI", "").lower() == "true" else pytest.skip)(reason)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoder, the ensemble, and two strangers: `other` gives other vectors, `narrow` 8 numbers a text."""
    folder = copy_repository(tmp_path_factory.mktemp("repository"))
    add_stranger(folder, "other", 384)
    add_stranger(folder, "narrow", 8)
    return folder


@pytest.fixture(scope="session")
def triton(repository: Path) -> Iterator[TritonServer]:
    """A server that no test kills."""
    with TritonServer(repository, ("encoder", "embed", "other", "narrow")) as server:
        yield server


@pytest.fixture(scope="session")
def learnt_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads, a second encoder, a cross-encoder and strangers: see `copy_learnt`."""
    return copy_learnt(tmp_path_factory.mktemp("learnt"))


@pytest.fixture(scope="session")
def learnt(learnt_repository: Path) -> Iterator[TritonServer]:
    """A server of what is trained beside the encoder, that no test kills."""
    with TritonServer(
        learnt_repository, ("encoder", "heads", "other", "second_encoder", "cross_encoder", "halved")
    ) as server:
        yield server


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a server of the test's own."""
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(TritonServer(*args, **kwargs))


@pytest_asyncio.fixture
async def open_encoder() -> AsyncIterator[Open]:
    """Open an encoder, closed at the end of the test."""
    opened: list[TritonEncoder] = []

    async def make(address: str, find: Resolve = resolve, **changes: object) -> TritonEncoder:
        chosen: EncoderSettings = settings(address, **changes)
        opened.append(await TritonEncoder.open(default_folder(), chosen, find=find))
        return opened[-1]

    yield make
    for one in opened:
        await one.close()


@pytest_asyncio.fixture
async def in_process() -> AsyncIterator[OnnxEncoder]:
    encoder = OnnxEncoder(default_folder())
    yield encoder
    await encoder.close()
