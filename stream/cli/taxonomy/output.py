"""The output of a command: a file or standard output."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tagbus.stream.errors import UserError


@contextmanager
def output(path: Path | None) -> Iterator[BinaryIO]:
    """A file, or standard output. Raises UserError if it cannot be written.

    A file is written beside its place first: one that exists stays as it is if the command fails.
    """
    if path is None:
        yield sys.stdout.buffer
        return
    try:
        with path.open("wb") if _is_special(path) else _replacing(path.resolve()) as stream:
            yield stream
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


def _is_special(path: Path) -> bool:
    """Whether it is a pipe, a device or the like, which only can be written to."""
    return path.exists() and not path.is_file()


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            yield stream
        if path.exists():
            shutil.copymode(path, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
