"""Tables with a header, CSV and TSV: rows of cells, and lists in a cell.

List items are separated by `|`; a backslash escapes the next character, and stands for itself at the end of a cell.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import BinaryIO, Final

from tagbus.stream.contract.codec import VALUE_BYTES
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.vocabulary.entry import SHOWN, Wrong
from tagbus.stream.vocabulary.source import text_lines

# The csv module's limit of 131,072 characters is below that of a text. It is global to the process.
csv.field_size_limit(VALUE_BYTES)

# A tag has at most 1,000 names, each a column. A row that ends early would fill any number of others.
COLUMNS: Final = 2_000

_ITEM: Final = re.compile(r"((?:[^\\|]|\\.)*\\?)(\||\Z)", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_SPECIAL: Final = re.compile(r"[\\|]|^\s|\s$")
_EDGES: Final = re.compile(r"^\s+|(?<!\\)\s+\Z")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: the place of its last line, and its cells by column.

    `missing`: the last columns, if the row ends before them; their cells are empty.
    """

    place: str
    cells: Mapping[str, str]
    missing: frozenset[str] = frozenset()

    def besides(self, known: Collection[str]) -> Iterator[str]:
        """The other columns, in order."""
        return (column for column in self.cells if column not in known)


def rows(
    name: str, stream: BinaryIO, delimiter: str, lacking: Callable[[Sequence[str]], str | None]
) -> Iterator[Row | Wrong]:
    """Yield the rows of a table. `lacking` returns what a header lacks, if anything.

    Where a comma is expected, a header separated by semicolons is accepted too: spreadsheets write those in many
    countries. Raises UserError for anything else.
    """
    number = 1

    def lines() -> Iterator[str]:
        nonlocal number
        for at, line in text_lines(name, stream):
            number = at
            yield line

    source = lines()
    try:
        first = next(source, "")
        if delimiter == "," and ";" in first and "," not in first:
            delimiter = ";"
        header = [cell.strip() for cell in next(csv.reader([first], delimiter=delimiter), [])]
        if len(header) > COLUMNS:
            raise UserError(f"{name}:1: the header has {len(header)} columns, expected at most {COLUMNS}")
        counts = Counter(header)
        if twice := next((column for column in header if column and counts[column] > 1), None):
            raise UserError(f"{name}:1: the header has {shorten(twice)} more than once, expected each column once")
        if missing := lacking(header):
            listed = ", ".join(shorten(column, 40) for column in header[:SHOWN]) or "nothing"
            raise UserError(f"{name}:1: the header has {listed}, expected {missing}")
        for cells in csv.reader(source, delimiter=delimiter, strict=True):
            if any(cells):
                yield _row(f"{name}:{number}", header, cells)
    except csv.Error as error:
        if "new-line" in str(error):
            raise UserError(
                f"{name}:{number}: a carriage return alone ends no line; a cell that contains one must be quoted, and "
                r"`tr '\r' '\n'` converts a file with such line ends"
            ) from None
        raise UserError(
            f"{name}:{number}: {error}; a cell that contains quotes must be quoted, with each quote doubled"
        ) from None


def writer(output: BinaryIO, delimiter: str, header: Sequence[str]) -> Callable[[Sequence[str]], None]:
    """Begin a table; returns the function that writes a row."""
    text = _Utf8(output)
    plain = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    quoted = csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(cells: Sequence[str]) -> None:
        # The csv module does not quote a carriage return, and refuses to read an unquoted one.
        (quoted if any("\r" in cell for cell in cells) else plain).writerow(cells)

    write(header)
    return write


def split(cell: str) -> tuple[str, ...]:
    """The items of a list in a cell."""
    found, at = list[str](), 0
    while match := _ITEM.match(cell, at):
        found.append(_ESCAPE.sub(r"\1", _EDGES.sub("", match[1])))
        at = match.end()
        if not match[2]:
            break
    return tuple(item for item in found if item)


def join(items: Iterable[str]) -> str:
    """A list as a cell."""
    return "|".join(_SPECIAL.sub(lambda found: f"\\{found[0]}", item) for item in items)


def bare(iri: str) -> str:
    """An IRI without the angle brackets of Annif's files."""
    text = iri.strip()
    return text[1:-1] if text.startswith("<") and text.endswith(">") else text


class _Utf8:
    """A text file for the csv module. (io's wrapper would close the underlying output.)"""

    def __init__(self, output: BinaryIO) -> None:
        self._output = output

    def write(self, text: str, /) -> int:
        return self._output.write(text.encode())


def _row(place: str, header: Sequence[str], cells: Sequence[str]) -> Row | Wrong:
    if len(cells) > len(header):
        return Wrong(place, f"{len(cells)} cells, expected {len(header)} as in the header")
    return Row(place, dict(zip_longest(header, cells, fillvalue="")), frozenset(header[len(cells) :]))
