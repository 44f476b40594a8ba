"""The real servers: skipped where their packages are not installed, an error when CI=true."""

import os
from collections.abc import Iterator
from typing import TypeVar

import pytest

from tagbus.stream.errors import UserError
from tagbus.stream.llm import open as opening
from tagbus.stream.llm import probe
from tagbus.stream.local.judges import DeciderServer, LlamaServer

# A call of a second takes a minute on a busy machine.
SECONDS = 300.0
S = TypeVar("S", DeciderServer, LlamaServer)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "llm/real" in str(item.path):
            item.add_marker(pytest.mark.llm)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look at a server takes as long as it must."""
    monkeypatch.setattr(opening, "LOOK_SECONDS", SECONDS)
    monkeypatch.setattr(probe, "LOOK_SECONDS", SECONDS)


def started(server: S) -> Iterator[S]:
    try:
        server.start()
    except UserError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def decider() -> Iterator[DeciderServer]:
    yield from started(DeciderServer())


@pytest.fixture(scope="session")
def llama() -> Iterator[LlamaServer]:
    yield from started(LlamaServer())
