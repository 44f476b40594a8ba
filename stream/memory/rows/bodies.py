"""Payloads by row in a file that forgets: what is replaced or removed is overwritten."""

import os
from pathlib import Path
from typing import Final

import numpy as np

from tagbus.stream.memory.rows.files import disk, unnamed

# Bytes; a file with less in it is never rewritten.
SMALL: Final = 1_000_000


class BodyFile:
    """A list of bytes in a file; each takes 12 bytes of memory. Methods raise DependencyDown if the disk fails."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = unnamed(folder)
        self._first = np.zeros(1024, np.int64)
        self._lengths = np.zeros(1024, np.int32)
        self._count = 0
        # Where the next one goes, and how many bytes before it are in use.
        self._end = 0
        self._used = 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> bytes:
        with disk(self._folder):
            return os.pread(self._file.fileno(), int(self._lengths[row]), int(self._first[row]))

    def __setitem__(self, row: int, body: bytes) -> None:
        if len(body) <= self._lengths[row]:
            self._write(body.ljust(int(self._lengths[row]), b"\0"), int(self._first[row]))
        else:
            self._make_room(len(body))
            self._write(body, self._end)
            self._forget(row)
            self._first[row], self._end = self._end, self._end + len(body)
        self._used += len(body) - int(self._lengths[row])
        self._lengths[row] = len(body)

    def append(self, body: bytes) -> None:
        """One more."""
        if self._count == len(self._first):
            self._first = np.concatenate((self._first, np.zeros(self._count, np.int64)))
            self._lengths = np.concatenate((self._lengths, np.zeros(self._count, np.int32)))
        self._first[self._count] = self._lengths[self._count] = 0
        self[self._count] = body
        self._count += 1

    def pop(self) -> bytes:
        """The last one, which is removed."""
        body = self[self._count - 1]
        self._forget(self._count - 1)
        self._count -= 1
        return body

    def _forget(self, row: int) -> None:
        self._write(bytes(int(self._lengths[row])), int(self._first[row]))
        self._used -= int(self._lengths[row])
        self._lengths[row] = 0

    def _make_room(self, more: int) -> None:
        """Rewrite the file if half of it is unused."""
        if self._end + more <= max(SMALL, 2 * (self._used + more)):
            return
        fresh = BodyFile(self._folder)
        for row in range(self._count):
            fresh.append(self[row])
        self._file.close()
        self._file, self._first, self._lengths = fresh._file, fresh._first, fresh._lengths
        self._end, self._used = fresh._end, fresh._used

    def _write(self, body: bytes, place: int) -> None:
        with disk(self._folder):
            while body:
                written = os.pwrite(self._file.fileno(), body, place)
                body, place = body[written:], place + written
