"""The bytes of a vocabulary file for its parser: counted, without a byte order mark, and checked by a guard first."""

from collections.abc import Iterator
from typing import BinaryIO, Protocol

from tagbus.stream.contract.codec import VALUE_BYTES
from tagbus.stream.errors import UserError

# Bytes read at a time.
CHUNK = 1 << 18
BOM = b"\xef\xbb\xbf"


class Guard(Protocol):
    """Checks a file before its parser reads it. Raises UserError, without the file's name, for unsafe input."""

    def feed(self, data: bytes) -> None:
        """Check the next bytes; empty at the end."""


class Source:
    """A named file, readable once. `line`: that of the last byte read, from 1.

    `failure`: the error that ended reading: a parser in C or Rust may replace it with another.
    """

    def __init__(self, name: str, stream: BinaryIO, guard: Guard | None = None) -> None:
        self.name = name
        self.line = 1
        self.failure: UserError | None = None
        self._stream = stream
        self._guard = guard
        self._ahead = b""
        self._begun = False

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, and at most CHUNK; empty at the end. Raises UserError."""
        if not self._ahead:
            self._ahead = self._more()
        most = len(self._ahead) if size < 0 else size
        data, self._ahead = self._ahead[:most], self._ahead[most:]
        self.line += data.count(b"\n")
        return data

    def _more(self) -> bytes:
        try:
            # One call for the available bytes: a pipe returns fewer than requested.
            data = self._stream.read(CHUNK)
            if not self._begun:
                self._begun, data = True, data.removeprefix(BOM)
            if self._guard is not None:
                self._guard.feed(data)
        except OSError as error:
            self.failure = UserError(f"{self.name} cannot be read: {error.strerror}")
        except UserError as error:
            self.failure = UserError(f"{self.name}: {error}")
        if self.failure is not None:
            raise self.failure
        return data


def text_lines(name: str, stream: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text with their numbers from 1, line ends kept. Raises UserError for a line that is not
    UTF-8 or longer than VALUE_BYTES."""
    number = 0
    while line := _line(name, stream):
        number += 1
        if len(line) > VALUE_BYTES:
            raise UserError(f"{name}:{number}: a line of more than {VALUE_BYTES} bytes")
        if number == 1:
            line = line.removeprefix(BOM)
        try:
            yield number, line.decode()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{name}:{number}: byte 0x{line[error.start]:02x} is not UTF-8; "
                f"`iconv -f LATIN1 -t UTF-8` or the like converts the file"
            ) from None


def _line(name: str, stream: BinaryIO) -> bytes:
    try:
        return stream.readline(VALUE_BYTES + 1)
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror}") from None
