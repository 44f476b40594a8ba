"""The standard streams of the command: UTF-8 in every locale, and a one-line error if one is closed or full."""

import io
import os
import select
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from tagbus.stream.errors import UserError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

STDIN, STDOUT, STDERR = range(3)

# By descriptor, the placeholder for a stream that was closed at startup. Kept referenced, or it would be closed again.
_closed: dict[int, select.epoll] = {}


class _Input(io.FileIO):
    """Standard input. Raises UserError if it cannot be read."""

    def readinto(self, buffer: "WriteableBuffer", /) -> int | None:
        try:
            while (count := super().readinto(buffer)) is None:
                _wait(STDIN, select.POLLIN)
            return count
        except OSError as error:
            raise UserError(f"standard input cannot be read: {_reason(STDIN, error)}") from None


class _Output(io.FileIO):
    """Standard output. The first failing write raises UserError or BrokenPipeError. Later output is dropped, or the
    interpreter's last flush would report the error again."""

    _lost = False

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return memoryview(data).nbytes if self._lost else _written(STDOUT, super().write, data)
        except BrokenPipeError:
            self._lost = True
            raise
        except OSError as error:
            self._lost = True
            raise UserError(f"standard output cannot be written: {_reason(STDOUT, error)}") from None


class _Messages(io.FileIO):
    """Standard error. A message that cannot be written is dropped: there is nowhere to report it."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return _written(STDERR, super().write, data)
        except OSError:
            return memoryview(data).nbytes


def replace() -> None:
    """Replace sys.stdin, sys.stdout and sys.stderr."""
    for descriptor in (STDIN, STDOUT, STDERR):
        _occupy(descriptor)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(_Input(STDIN, "r", closefd=False)), "utf-8")
    # Line-buffered on a terminal or with PYTHONUNBUFFERED.
    by_line = isinstance(sys.stdout, io.TextIOWrapper) and (sys.stdout.line_buffering or sys.stdout.write_through)
    sys.stdout = _text(_Output(STDOUT, "w", closefd=False), by_line=by_line)
    sys.stderr = _text(_Messages(STDERR, "w", closefd=False), by_line=True)


def _written(descriptor: int, write: Callable[["ReadableBuffer"], int | None], data: "ReadableBuffer") -> int:
    """Wait for room, then write as much as fits. A pipe that Node.js or another program has made non-blocking accepts
    nothing while it is full, and the interpreter's own streams would drop the rest."""
    while (count := write(data)) is None:
        _wait(descriptor, select.POLLOUT)
    return count


def _wait(descriptor: int, event: int) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    poll.poll()


def _occupy(descriptor: int) -> None:
    """Occupy a closed descriptor, or the next file or socket gets its number and receives standard output."""
    try:
        os.fstat(descriptor)
    except OSError:
        # O_PATH: it can be neither read, nor written, nor opened as /dev/stdin.
        _closed[descriptor] = select.epoll()
        if _closed[descriptor].fileno() != descriptor:
            os.dup2(_closed[descriptor].fileno(), descriptor)


def _text(raw: io.FileIO, *, by_line: bool) -> io.TextIOWrapper:
    """Characters that UTF-8 cannot encode, as in a file name, become escapes."""
    return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=by_line)


def _reason(descriptor: int, error: OSError) -> str:
    return "it is closed" if descriptor in _closed else error.strerror or str(error)
