"""JSON lines from files and standard input, as the commands read them."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

from tagbus.stream.contract.codec import VALUE_BYTES, parse
from tagbus.stream.contract.events import Content, Exemplar, Knowledge, Tag
from tagbus.stream.contract.fields import Event
from tagbus.stream.errors import Poison, UserError

E = TypeVar("E", bound=Event)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its place (path:number) for messages, and its bytes without the line end."""

    place: str
    value: bytes


def read_lines(path: Path) -> Iterator[Line]:
    """The non-empty lines of a file; `-` is standard input. Raises UserError if it cannot be opened.

    A line longer than the contract's largest value is cut one byte above that limit: decoding rejects it, and memory
    stays bounded.
    """
    try:
        stream = sys.stdin.buffer if str(path) == "-" else path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    return _lines(path, stream)


def _lines(path: Path, stream: BinaryIO) -> Iterator[Line]:
    with stream:
        for number, line in enumerate(_bounded(stream), start=1):
            if value := line.strip():
                yield Line(f"{path}:{number}", value)


def _bounded(stream: BinaryIO) -> Iterator[bytes]:
    while line := stream.readline(VALUE_BYTES + 1):
        rest = line
        while len(rest) > VALUE_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(VALUE_BYTES + 1)
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


# The parser for each kind of file.
READERS: dict[str, Callable[[Line], Content | Tag | Exemplar | Knowledge]] = {
    "content": content_of,
    "tags": tag_of,
    "exemplars": exemplar_of,
    "knowledge": knowledge_of,
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


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split into lists of at most `size` items."""
    source = iter(items)
    while chunk := list(islice(source, size)):
        yield chunk
