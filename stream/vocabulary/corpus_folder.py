"""Annif's full texts: a folder of `.txt` with `.tsv` or `.key` beside each, or of `.json`."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tagbus.stream.contract.codec import VALUE_BYTES
from tagbus.stream.contract.fields import TEXT_CHARS
from tagbus.stream.errors import UserError
from tagbus.stream.vocabulary.corpus import Document, Known, document_of, of_annif
from tagbus.stream.vocabulary.entry import Remarks, Wrong
from tagbus.stream.vocabulary.source import BOM

_TEXTS: Final = (".txt", ".json")
_SUBJECTS: Final = (".tsv", ".key")


def read(folder: Path, remarks: Remarks) -> Iterator[Known | Wrong]:
    """Read the documents of a folder by name; the name is the content's id. Raises UserError if it cannot be read."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from None
    if not any(name.endswith(_TEXTS) for name in names):
        remarks.add(f"the folder has no {' or '.join(_TEXTS)}", str(folder))
    for name in names:
        path = folder / name
        if path.suffix == ".txt":
            yield from _text(path, remarks)
        elif path.suffix == ".json":
            yield from _json(path, remarks)
        elif path.suffix == ".gz":
            remarks.add("compressed files are left out: unpack them", str(path))


def _text(path: Path, remarks: Remarks) -> Iterator[Known | Wrong]:
    beside = [path.with_suffix(suffix) for suffix in _SUBJECTS if path.with_suffix(suffix).is_file()]
    if not beside:
        remarks.add("texts without a .tsv or .key of the same name are left out", str(path))
        return
    # At most 4 bytes a character: anything beyond is cut anyway.
    text, subjects = _decoded(path, 4 * TEXT_CHARS + 4), _decoded(beside[0], VALUE_BYTES)
    for one in (text, subjects):
        if isinstance(one, Wrong):
            yield one
            return
    lines = [_subject(line) for line in str(subjects).splitlines() if line.strip()]
    found = {"document_id": path.stem, "text": str(text), "subjects": tuple(lines)}
    yield from of_annif(str(path), Document.model_validate(found), remarks)


def _json(path: Path, remarks: Remarks) -> Iterator[Known | Wrong]:
    value = _decoded(path, VALUE_BYTES)
    document = value if isinstance(value, Wrong) else document_of(str(path), value)
    if isinstance(document, Wrong):
        yield document
        return
    named = document.model_copy(update={"document_id": document.document_id or path.stem})
    yield from of_annif(str(path), named, remarks)


def _decoded(path: Path, most: int) -> str | Wrong:
    """The text of a file, at most `most` bytes."""
    try:
        with path.open("rb") as stream:
            data = stream.read(most).removeprefix(BOM)
    except OSError as error:
        return Wrong(str(path), f"it cannot be read: {error.strerror}")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if len(data) - error.start < 4 and error.reason == "unexpected end of data":
            # A character split by the cut.
            return data[: error.start].decode()
        return Wrong(str(path), f"byte 0x{data[error.start]:02x} is not UTF-8")


def _subject(line: str) -> dict[str, str]:
    """A URI in angle brackets, a label, or both with a tab between."""
    cells = [cell.strip() for cell in line.split("\t") if cell.strip()]
    uris = [cell[1:-1] for cell in cells if cell.startswith("<") and cell.endswith(">")]
    return {"uri": uris[0]} if uris else {"label": cells[-1]}
