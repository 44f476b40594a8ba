"""A folder of titles with their tags: the input of `tagbus evaluate` and of training."""

import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from pydantic import ValidationError

from tagbus.stream.app.data.corpus import each_once
from tagbus.stream.app.places.files import require_regular
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.contract.field_errors import poison
from tagbus.stream.contract.fields import Event
from tagbus.stream.errors import UserError

E = TypeVar("E", bound=Event)

# A byte order mark, which spreadsheets write, is no part of the first number.
CODE: Final = "utf-8-sig"


@dataclass(frozen=True, slots=True)
class DataFolder:
    """A folder in the format of the YSO titles: labels.tsv, train.tsv or train.tsv.xz, val.tsv, test.tsv.

    A line of labels.tsv is number, URI, name. The other files have text, tab, comma-separated label numbers.
    """

    folder: Path

    def tags(self) -> list[Tag]:
        """The taxonomy, with label numbers as ids."""
        path = self.folder / "labels.tsv"
        rows = enumerate((line.split("\t") for line in _text_lines(path)), start=1)
        return each_once(
            path, (made(Tag, f"{path}:{number}", id=row[0], name=(*row, "", "")[2]) for number, row in rows)
        )

    def exemplars(self, split: str) -> Iterator[Exemplar]:
        """The titles of a split with their tags. Raises UserError that names the line."""
        path = self.folder / f"{split}.tsv"
        if not path.exists():
            path = self.folder / f"{split}.tsv.xz"
        for number, line in enumerate(_text_lines(path), start=1):
            text, tab, labels = line.partition("\t")
            if not tab:
                raise UserError(f"{path}:{number}: expected text, tab, label numbers with commas")
            yield made(
                Exemplar, f"{path}:{number}", id=f"{split}-{number}", text=text, accepted=tuple(labels.split(","))
            )


def _text_lines(path: Path) -> Iterator[str]:
    require_regular(path)
    try:
        with lzma.open(path, "rt", encoding=CODE) if path.suffix == ".xz" else path.open(encoding=CODE) as file:
            for line in file:
                yield line.rstrip("\n")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; see `tagbus evaluate --help`") from None
    except (lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}; expected text in UTF-8") from None


def made(model: type[E], place: str, **fields: object) -> E:
    """An event from the fields of a file. Raises UserError that names `place` (file and line), the field and the
    expected value."""
    try:
        return model(**fields)
    except ValidationError as error:
        raise UserError(f"{place}: {poison(error, model)}") from None
