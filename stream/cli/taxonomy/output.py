"""The output of a command: a file or standard output."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tagbus.stream.errors import UserError


@contextmanager
def output(path: Path | None) -> Iterator[BinaryIO]:
    """A file, or standard output. Raises UserError if it cannot be written."""
    if path is None:
        yield sys.stdout.buffer
        return
    try:
        with path.open("wb") as stream:
            yield stream
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
