"""Command output: results on standard output, everything else on standard error."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tagbus.stream.telemetry.logs import JsonFormatter


class _Pipe(Console):
    """Raises BrokenPipeError when the reader closes the pipe; Rich would end the process with code 1 instead."""

    def on_broken_pipe(self) -> None:
        raise  # BrokenPipeError, which is being handled


stderr = Console(stderr=True, highlight=False, markup=False)
stdout = _Pipe(highlight=False, markup=False)

# Without a terminal, progress is one line per tenth of the work.
PLAIN_STEPS = 10


@dataclass(slots=True)
class Bar:
    """Progress of one task: a bar on a terminal, plain lines elsewhere."""

    title: str
    total: int
    done: int = 0
    progress: Progress | None = None
    task: TaskID | None = None

    def advance(self, count: int) -> None:
        """Report `count` more as done."""
        self.to(self.done + count)

    def to(self, done: int) -> None:
        """Report `done` in total."""
        before = self.done * PLAIN_STEPS // max(1, self.total)
        self.done = max(self.done, done)
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=self.done)
        elif self.total >= WORTH_SHOWING and self.done * PLAIN_STEPS // max(1, self.total) > before:
            stderr.print(f"{self.title}: {self.done} of {self.total}")


# Shorter tasks finish before a progress line is of use.
WORTH_SHOWING = 50


@contextmanager
def bar(title: str, total: int) -> Iterator[Bar]:
    """A progress bar on standard error."""
    if total < WORTH_SHOWING or not sys.stderr.isatty():
        yield Bar(title, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=False) as progress:
        yield Bar(title, total, progress=progress, task=progress.add_task(title, total=total))


def wrong_lines(count: int) -> str:
    """The start of a message: the number of wrong lines of a file."""
    return f"{count} {'line is' if count == 1 else 'lines are'} wrong"


def printable(text: str) -> str:
    """Untrusted text on one line, without characters that move a terminal's cursor or change its colours."""
    return "".join(character for character in text if character.isprintable())


def print_line(text: str) -> None:
    """One line of the result, never wrapped: it may be piped."""
    stdout.print(text, soft_wrap=True)


def say(text: str) -> None:
    """One plain line on standard error."""
    stderr.print(text, soft_wrap=True)


def set_up_logging(level: str, form: Literal["text", "json"] = "text") -> None:
    """Log to standard error, one event per line."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # They log every request at INFO with its full URL, which holds the search terms and possibly an API key.
    for name in ("httpx", "httpcore", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
