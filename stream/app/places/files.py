"""JSON lines from files, pipes and standard input, as the commands read them."""

import io
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from tagbus.stream.app.places.file_forms import require_lines, require_text
from tagbus.stream.contract.codec import VALUE_BYTES, parse
from tagbus.stream.contract.decision import Decision
from tagbus.stream.contract.events import Content, Exemplar, Knowledge, Tag
from tagbus.stream.contract.fields import Event
from tagbus.stream.errors import Poison, UserError

E = TypeVar("E", bound=Event)
T = TypeVar("T")

# Bytes copied per read.
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its file, its number from 1, and its bytes without the line end."""

    file: Path
    number: int
    value: bytes

    @property
    def place(self) -> str:
        """path:number, for messages."""
        return f"{self.file}:{self.number}"


def read_lines(path: Path) -> Iterator[Line]:
    """The non-empty lines of a file, in one pass: it may be a pipe. `-` is standard input. Raises UserError if it
    cannot be read.

    A line longer than the contract's largest value is cut one byte above that limit: decoding rejects it, and memory
    stays bounded.
    """
    return _all_lines(path, _opened(path))


@contextmanager
def rereadable(path: Path) -> Iterator[Callable[[], Iterator[Line]]]:
    """Open a file that is read more than once: each call yields its lines from the start, as `read_lines` does. A pipe
    is copied to a temporary file. Raises UserError if the file cannot be read or the copy cannot be written.
    """
    with _opened(path) as stream:
        if _is_regular(stream):
            yield _from_here(path, stream)
            return
        with _copy(path, stream) as copy:
            yield _from_here(path, copy)


@contextmanager
def text(path: Path) -> Iterator[tuple[bytes, BinaryIO]]:
    """The first bytes of a text file, and a stream of all of it, in one pass; `-` is standard input. Raises UserError
    if it cannot be read, or begins like a file that is compressed or not in UTF-8."""
    with _opened(path) as opened, io.BufferedReader(cast(io.RawIOBase, opened)) as stream:
        first = _read(path, stream.peek)
        require_text(_name(path), first)
        yield first, stream


def require_distinct(*paths: Path | None) -> None:
    """Raises UserError if two arguments name the same pipe or standard input: the second would read nothing."""
    seen: dict[tuple[int, int], Path] = {}
    for path in paths:
        if path is None or (identity := _pipe(path)) is None:
            continue
        if identity in seen:
            raise UserError(f"{_name(path)} is the input {_name(seen[identity])} again, which can be read only once")
        seen[identity] = path


def require_regular(path: Path) -> None:
    """Raises UserError for a pipe if the file is read more than once. A missing file is left to its reader."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is read more than once, expected a regular file")


def _opened(path: Path) -> BinaryIO:
    try:
        return sys.stdin.buffer if _is_stdin(path) else path.open("rb")
    except OSError as error:
        raise UserError(f"{_name(path)} cannot be read: {error.strerror}") from None


def _is_stdin(path: Path) -> bool:
    return str(path) == "-"


def _name(path: Path) -> str:
    return "standard input" if _is_stdin(path) else str(path)


def _pipe(path: Path) -> tuple[int, int] | None:
    """Device and inode of an input that can be read only once; None for a regular or a missing file."""
    try:
        found = os.fstat(0) if _is_stdin(path) else path.stat()
    except OSError:
        return None
    return None if stat.S_ISREG(found.st_mode) and not _is_stdin(path) else (found.st_dev, found.st_ino)


def _is_regular(stream: BinaryIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except OSError:
        return False


def _from_here(path: Path, stream: BinaryIO) -> Callable[[], Iterator[Line]]:
    """Rereads from the current position: standard input may be a file that was partly read before."""
    start = stream.tell()

    def again() -> Iterator[Line]:
        stream.seek(start)
        return _lines(path, stream)

    return again


@contextmanager
def _copy(path: Path, stream: BinaryIO) -> Iterator[BinaryIO]:
    with _writable(path):
        # Unbuffered, or closing it would retry the write that failed for lack of space.
        raw = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - the reader closes it
    with io.BufferedReader(raw) as copy:
        while chunk := _read(path, lambda: stream.read(CHUNK)):
            with _writable(path):
                while chunk:
                    chunk = chunk[raw.write(chunk) :]
        copy.seek(0)
        yield copy


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{_name(path)} cannot be copied to the temporary folder: {error.strerror}; TMPDIR names another"
        ) from None


def _read(path: Path, call: Callable[[], bytes]) -> bytes:
    try:
        return call()
    except OSError as error:
        raise UserError(f"{_name(path)} cannot be read: {error.strerror}") from None


def _all_lines(path: Path, stream: BinaryIO) -> Iterator[Line]:
    with stream:
        yield from _lines(path, stream)


def _lines(path: Path, stream: BinaryIO) -> Iterator[Line]:
    for number, line in enumerate(_bounded(path, stream), start=1):
        if number == 1:
            require_lines(_name(path), line)
        if value := line.strip():
            yield Line(path, number, value)


def _bounded(path: Path, stream: BinaryIO) -> Iterator[bytes]:
    def more() -> bytes:
        return _read(path, lambda: stream.readline(VALUE_BYTES + 1))

    while line := more():
        rest = line
        while len(rest) > VALUE_BYTES and not rest.endswith(b"\n"):
            rest = more()
        yield line


def content_of(line: Line) -> Content:
    """The content on a line. Raises Poison."""
    return parse(line.value, Content)


def tag_of(line: Line) -> Tag:
    """The tag on a line. Raises Poison."""
    return parse(line.value, Tag)


def exemplar_of(line: Line) -> Exemplar:
    """The exemplar on a line. Raises Poison."""
    return parse(line.value, Exemplar)


def knowledge_of(line: Line) -> Knowledge:
    """The knowledge segment on a line. Raises Poison."""
    return parse(line.value, Knowledge)


def decision_of(line: Line) -> Decision:
    """The decision on a line. Raises Poison."""
    return parse(line.value, Decision)


# The parser for each kind of file.
READERS: dict[str, Callable[[Line], Content | Tag | Exemplar | Knowledge | Decision]] = {
    "content": content_of,
    "tags": tag_of,
    "exemplars": exemplar_of,
    "knowledge": knowledge_of,
    "feedback": decision_of,
}


def all_of(path: Path, parse: Callable[[Line], E]) -> list[E]:
    """Every event of a file. Raises UserError that names line and field of the first invalid event."""
    events = []
    for line in read_lines(path):
        try:
            events.append(parse(line))
        except Poison as error:
            raise UserError(f"{line.place}: {error}") from None
    return events


def write(to: Path, text: str) -> None:
    """Write a file, and create its folder. Raises UserError if it cannot be written."""
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{to}: cannot be written ({error.strerror})") from None


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split into lists of at most `size` items."""
    source = iter(items)
    while chunk := list(islice(source, size)):
        yield chunk
