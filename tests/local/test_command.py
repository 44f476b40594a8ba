"""A command that runs to its end: its output, and the error if it fails."""

import os
import sys

import pytest

from tagbus.stream.errors import DependencyDown
from tagbus.stream.local.command import output_of


def command(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_its_output_is_given() -> None:
    variables = {**os.environ, "SAID": "\u00e9t\u00e9", "PYTHONIOENCODING": "utf-8"}
    assert output_of("words", command("import os; print(os.environ['SAID'])"), 60, variables) == "\u00e9t\u00e9\n"


def test_the_last_line_says_why_it_failed() -> None:
    with pytest.raises(DependencyDown, match=r"^words: 'no such file'$"):
        output_of("words", command("import sys; print('a trace', file=sys.stderr); sys.exit('no such file')"), 60)


def test_one_that_says_nothing_is_known_by_its_code() -> None:
    with pytest.raises(DependencyDown, match=r"^words: exited with code -9 and no output$"):
        output_of("words", command("import os; os.kill(os.getpid(), 9)"), 60)


def test_one_that_takes_too_long_is_ended() -> None:
    with pytest.raises(DependencyDown, match=r"^words: not finished within 0\.5 s$"):
        output_of("words", command("import signal; signal.pause()"), 0.5)
