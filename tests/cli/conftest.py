"""Fixtures for the tests of the command."""

import pytest

from tests.cli.harness import Cli, Slice, cut


@pytest.fixture
def tagbus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """`tagbus("validate", file)` runs the command in this process."""
    return Cli(monkeypatch, capsys)


@pytest.fixture(scope="session")
def cutting(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    """A small slice of the examples."""
    return cut(tmp_path_factory.mktemp("slice"))
