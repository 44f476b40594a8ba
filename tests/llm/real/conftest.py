"""The real servers: skipped where their packages are not installed, an error when CI=true."""

import os
from collections.abc import Iterator
from typing import TypeVar

import pytest

from tagbus.stream.errors import UserError
from tagbus.stream.local.judges import DeciderServer, LlamaServer

S = TypeVar("S", DeciderServer, LlamaServer)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "llm/real" in str(item.path):
            item.add_marker(pytest.mark.llm)


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
