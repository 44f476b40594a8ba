"""Temporary files without a name: the system deletes them when the process ends, however it ends."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from tagbus.stream.errors import DependencyDown, UserError


def unnamed(folder: Path, size: int = 0) -> BinaryIO:
    """A file of this many bytes, which the disk has room for. Raises UserError for a folder that cannot be made, and
    DependencyDown."""
    with disk(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise UserError(f"TAGBUS_MEMORY__PATH: {folder} is not a writable folder: {error.strerror}") from None
        file = cast(BinaryIO, tempfile.TemporaryFile(dir=folder, buffering=0))  # noqa: SIM115 - the caller closes it
        if size:
            # A mapped page that the disk has no room for would kill the process.
            os.posix_fallocate(file.fileno(), 0, size)
        return file


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """Turns what the disk refuses into DependencyDown."""
    try:
        yield
    except OSError as error:
        raise DependencyDown(f"the store's files in {folder}: {error.strerror}") from error
