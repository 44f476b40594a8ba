"""`tagbus acceptance`: what it refuses."""

from pathlib import Path

import pytest

from tests.cli.harness import Cli


@pytest.fixture
def tagbus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(monkeypatch, capsys)


def test_a_folder_that_is_not_there_is_named(tagbus: Cli, tmp_path: Path) -> None:
    answer = tagbus("acceptance", "--out", tmp_path / "none")
    assert answer.code == 2
    assert "expected an existing folder" in answer.one_line()
