"""Folders of the Extreme Classification Repository (Bhatia et al., manikvarma.org/downloads/XC/XMLRepository.html).

Three formats, each file plain or .gz:

    raw text, JSON     lbl.json, trn.json, tst.json: one object per line: title, content, target_ind (label numbers)
    raw text, lines    Y.txt, trn_X.txt, tst_X.txt: one text per line; trn_X_Y.txt, tst_X_Y.txt: sparse label rows
    bag of words       train.txt, test.txt: "points features labels", then "3,17 12:0.5 90:1.2"; the text consists of
                       the features' names (Xf.txt) or numbers, heaviest first; label names are in Y.txt or Yf.txt

A sparse file starts with "rows columns"; each row is "column:value column:value".
"""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Literal, Protocol

from tagbus.models.data.splits import Split, split_of
from tagbus.stream.app.data.data_folder import made
from tagbus.stream.app.places.files import require_regular
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.contract.fields import NAME_CHARS, TEXT_CHARS, TITLE_CHARS, blank
from tagbus.stream.errors import UserError, shorten

Part = Literal["trn", "tst"]


@dataclass(frozen=True, slots=True)
class Row:
    """A content: its position (file and line), title, text and label numbers."""

    place: str
    title: str
    text: str
    labels: tuple[int, ...]


class Folder(Protocol):
    """A folder in one of the formats."""

    def labels(self) -> Iterator[tuple[str, str]]:
        """Yield position and name of each label; unnamed labels are named by their number."""
        ...

    def rows(self, part: Part) -> Iterator[Row]:
        """The contents, streamed. Raises UserError that names file and line."""
        ...


def find(folder: Path) -> Folder | None:
    """Open a folder in the format of its files; None if the format is unknown."""
    if _there(folder, "lbl.json"):
        return RawJson(folder)
    if _there(folder, "trn_X.txt"):
        return RawLines(folder)
    return Words(folder) if _there(folder, "train.txt") else None


@dataclass(frozen=True, slots=True)
class RawJson:
    """Raw text, one JSON object per line."""

    folder: Path

    def labels(self) -> Iterator[tuple[str, str]]:
        """The titles of lbl.json."""
        for number, (place, line) in enumerate(_lines(self.folder, "lbl.json")):
            yield place, _name(_text(place, _object(place, line), "title"), number)

    def rows(self, part: Part) -> Iterator[Row]:
        """The objects of trn.json or tst.json."""
        for place, line in _lines(self.folder, f"{part}.json"):
            fields = _object(place, line)
            title, text = _text(place, fields, "title"), _text(place, fields, "content")
            labels = fields.get("target_ind", [])
            if not isinstance(labels, list) or not all(type(one) is int and one >= 0 for one in labels):
                raise UserError(f"{place}: target_ind: {shorten(labels)} is wrong, expected a list of label numbers")
            # A product without a description has its title as text.
            yield Row(place, title[:TITLE_CHARS] if text else "", (text or title)[:TEXT_CHARS], _once(labels))


@dataclass(frozen=True, slots=True)
class RawLines:
    """Raw text, one per line, with a separate file of label rows."""

    folder: Path

    def labels(self) -> Iterator[tuple[str, str]]:
        """The lines of Y.txt."""
        return ((place, _name(line, number)) for number, (place, line) in enumerate(_lines(self.folder, "Y.txt")))

    def rows(self, part: Part) -> Iterator[Row]:
        """Each text with its row of labels."""
        rows = _lines(self.folder, f"{part}_X_Y.txt")
        place, head = next(rows, (f"{self.folder}/{part}_X_Y.txt:1", ""))
        _numbers(place, head.split(), "rows columns", 2)
        texts = _lines(self.folder, f"{part}_X.txt")
        nothing: tuple[str, None] = ("", None)
        for (at, text), (place, row) in zip(texts, chain(rows, repeat(nothing)), strict=False):
            if row is None:
                raise UserError(f"{at}: a text without a row in {part}_X_Y.txt")
            labels = _numbers(place, [item.split(":")[0] for item in row.split()], "column:value column:value")
            yield Row(at, "", text[:TEXT_CHARS], _once(labels))


@dataclass(frozen=True, slots=True)
class Words:
    """Bags of words: only the features of a text, not the text itself."""

    folder: Path

    def labels(self) -> Iterator[tuple[str, str]]:
        """The names in Y.txt or Yf.txt, else the label numbers."""
        for name in ("Y.txt", "Yf.txt"):
            if _there(self.folder, name):
                lines = _lines(self.folder, name)
                return ((place, _name(line, number)) for number, (place, line) in enumerate(lines))
        place, (_, _, count) = self._head("train.txt")
        return ((place, str(number)) for number in range(count))

    def rows(self, part: Part) -> Iterator[Row]:
        """The rows of train.txt or test.txt."""
        names = [line for _, line in _lines(self.folder, "Xf.txt")] if _there(self.folder, "Xf.txt") else None
        file = {"trn": "train.txt", "tst": "test.txt"}[part]
        self._head(file)
        lines = _lines(self.folder, file)
        next(lines)
        for place, line in lines:
            labels, _, rest = line.partition(" ") if not line.startswith(" ") else ("", "", line)
            numbers = _numbers(place, labels.split(",") if labels else [], "labels, then feature:value")
            yield Row(place, "", " ".join(_words(place, rest, names))[:TEXT_CHARS], _once(numbers))

    def _head(self, file: str) -> tuple[str, list[int]]:
        place, head = next(_lines(self.folder, file), (f"{self.folder / file}:1", ""))
        return place, _numbers(place, head.split(), "points features labels", 3)


@dataclass(frozen=True, slots=True)
class XmcCorpus:
    """A folder as a corpus. The format has no validation split, so some training contents are held out."""

    folder: Folder

    def tags(self) -> list[Tag]:
        """The labels, with their numbers as ids."""
        return [
            made(Tag, place, id=str(number), name=name) for number, (place, name) in enumerate(self.folder.labels())
        ]

    def exemplars(self, split: Split) -> Iterator[Exemplar]:
        """The contents that have a label and a text."""
        part: Part = "tst" if split == "test" else "trn"
        for number, row in enumerate(self.folder.rows(part)):
            name = f"{part}-{number}"
            if row.labels and row.text and (part == "tst" or (split_of(name) == "val") == (split == "val")):
                accepted = tuple(map(str, row.labels))
                yield made(Exemplar, row.place, id=name, title=row.title, text=row.text, accepted=accepted)


def _words(place: str, row: str, names: list[str] | None) -> list[str]:
    """The names of a row's features, heaviest first."""
    found = []
    for item in row.split():
        feature, _, value = item.partition(":")
        try:
            number, weight = int(feature), float(value)
            found.append((-weight, number, f"f{number}" if names is None else names[number]))
        except (ValueError, IndexError):
            raise UserError(f"{place}: {shorten(item)} is wrong, expected feature:value") from None
    return [name for _, _, name in sorted(found)]


def _there(folder: Path, name: str) -> bool:
    return (folder / name).exists() or (folder / f"{name}.gz").exists()


def _lines(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """Yield position and text of each line. Raises UserError if the file cannot be read."""
    path = folder / name
    path = path if path.exists() else folder / f"{name}.gz"
    require_regular(path)
    try:
        # Older files of the repository contain bytes that are not UTF-8.
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                yield f"{path}:{number}", line.rstrip("\n")
    except (OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _object(place: str, line: str) -> dict[str, object]:
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise UserError(f"{place}: {shorten(line)} is wrong, expected a JSON object")
    return fields


def _text(place: str, fields: dict[str, object], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise UserError(f"{place}: {name}: {shorten(value)} is wrong, expected a text")
    return "" if blank(value) else value.strip()


def _name(text: str, number: int) -> str:
    name = text.strip()[:NAME_CHARS]
    return str(number) if blank(name) else name


def _numbers(place: str, words: list[str], expected: str, count: int | None = None) -> list[int]:
    try:
        numbers = [int(word) for word in words]
    except ValueError:
        numbers = [-1]
    if any(number < 0 for number in numbers) or (count is not None and len(numbers) != count):
        raise UserError(f"{place}: {shorten(' '.join(words))} is wrong, expected {expected}")
    return numbers


def _once(labels: list[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(labels))
