"""A server as a child process: a start that fails by chance is retried."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tagbus.stream.errors import DependencyDown
from tagbus.stream.local.child import UNLUCKY_TRIES, Child

SCRIPT = """
import pathlib, sys, time
starts = pathlib.Path("starts")
number = len(starts.read_text()) if starts.exists() else 0
starts.write_text("x" * (number + 1))
if number < int(sys.argv[1]):
    sys.exit("a lock timed out")
pathlib.Path("up").touch()
time.sleep(600)
"""


class Unlucky(Child):
    """Fails as it starts, so many times."""

    name = "unlucky server"
    unlucky = "a lock timed out"

    def __init__(self, failures: int) -> None:
        super().__init__(120.0)
        self._failures = failures

    def _install(self) -> None:
        """Nothing is needed."""

    def _place(self) -> None:
        self.address = "nowhere"

    def _prepare(self) -> None:
        """Nothing is needed."""

    def _command(self) -> list[str]:
        return [sys.executable, "-c", SCRIPT, str(self._failures)]

    def _answers(self) -> bool:
        return (self.folder / "up").exists()


class Certain(Unlucky):
    """The same, of which no failure is by chance."""

    unlucky = ""


def starts(folder: Path) -> int:
    return len((folder / "starts").read_text())


def test_it_is_started_again_when_the_log_says_that_it_was_chance() -> None:
    with Unlucky(UNLUCKY_TRIES - 1) as server:
        assert starts(server.folder) == UNLUCKY_TRIES


@pytest.mark.parametrize(("make", "failures"), [(Unlucky, UNLUCKY_TRIES), (Certain, 1)])
def test_it_is_given_up_when_it_fails_each_time_or_not_by_chance(make: Callable[[int], Child], failures: int) -> None:
    with pytest.raises(DependencyDown, match="unlucky server exited with code 1 on startup"):
        make(failures).start()
