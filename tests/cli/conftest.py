"""Fixtures for the tests of the command."""

import pytest

from tagbus.stream.app.data.examples import example
from tagbus.stream.app.places import files
from tagbus.stream.contract.events import Exemplar
from tests.cli.harness import Cli, Slice, cut


@pytest.fixture
def tagbus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """`tagbus("validate", file)` runs the command in this process."""
    return Cli(monkeypatch, capsys)


@pytest.fixture(scope="session")
def cutting(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    """A small slice of the examples."""
    return cut(tmp_path_factory.mktemp("slice"))


@pytest.fixture(scope="session")
def unseen(cutting: Slice) -> list[Exemplar]:
    """Annotated titles that the slice's memory does not hold, with a tag that it does."""
    known, memory = {tag.id for tag in cutting.tags}, {item.id for item in cutting.exemplars}
    every = files.all_of(example("exemplars.jsonl"), files.exemplar_of)
    return [item for item in every if item.id not in memory and known & set(item.accepted)][:100]
