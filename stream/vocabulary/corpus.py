"""Corpora: contents with known tags, as JSON lines, tables and in Annif's formats.

Annif names a content's tags by URI or by label, and few of its contents have an id: one without is named by a hash of
its text, so that the same text is the same content however often a file is read.
"""

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import BinaryIO, Final, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from tagbus.stream.contract.codec import parse
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.contract.field_errors import poison
from tagbus.stream.contract.fields import TEXT_CHARS, blank
from tagbus.stream.errors import Poison, UserError, shorten
from tagbus.stream.vocabulary.entry import Remarks, Wrong
from tagbus.stream.vocabulary.source import BOM, text_lines
from tagbus.stream.vocabulary.table import Row, bare, rows, split

Form: TypeAlias = Literal["jsonl", "csv", "tsv", "annif", "folder"]

# URIs that something other than a space separates. One tag of that name would be in no taxonomy.
_SEVERAL: Final = re.compile(r"[<>]|[,;](?:$|[a-z][a-z0-9+.-]*://)")
SUFFIXES: Final[dict[str, Form]] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv"}
LISTS: Final = ("accepted", "rejected", "scopes")
COLUMNS: Final = ("id", "title", "text", *LISTS, "time")
ANNIF_URIS: Final = "subject_uris"


@dataclass(frozen=True, slots=True)
class Known:
    """A content with its tags. `labels`: the tags that the corpus names by label."""

    place: str
    exemplar: Exemplar
    labels: tuple[str, ...] = ()


class _Subject(BaseModel):
    model_config = ConfigDict(strict=True)

    uri: str | None = None
    label: str | None = None


class Document(BaseModel):
    """Annif's JSON of a document."""

    model_config = ConfigDict(strict=True)

    document_id: str | None = None
    text: str = ""
    metadata: dict[str, str] = {}
    subjects: tuple[_Subject, ...] = ()


def form_of(path: PurePath, first: bytes = b"", *, is_folder: bool = False) -> Form:
    """The form of a corpus by its file extension; a TSV whose `first` bytes are not a header of ours is Annif's.

    Raises UserError.
    """
    if is_folder:
        return "folder"
    form = SUFFIXES.get(path.suffix.casefold())
    if form is None:
        raise UserError(f"{path}: its form is not clear from its name; give --form: {', '.join(get_args(Form))}")
    # A header in capitals is one too: the table's reader says what is wrong with it.
    header = re.split(rb"[\r\n]", first.removeprefix(BOM))[0].decode(errors="replace").casefold()
    if form == "tsv" and "id" not in (cell.strip() for cell in next(csv.reader([header], delimiter="\t"), [])):
        return "annif"
    return form


def read(name: str, stream: BinaryIO, form: Form, remarks: Remarks) -> Iterator[Known | Wrong]:
    """Read the contents of a file. Raises UserError, in one line with the place, for a file of another form."""
    match form:
        case "jsonl":
            return _json_lines(name, stream, remarks)
        case "csv" | "tsv":
            return _table(name, stream, "," if form == "csv" else "\t", remarks)
        case "annif":
            return _short_texts(name, stream, remarks)
        case "folder":
            raise UserError(f"{name} is not a folder")


def of_annif(place: str, document: Document, remarks: Remarks) -> Iterator[Known | Wrong]:
    """A document of Annif as an exemplar; none for one that shows no text: nothing is similar to it."""
    text, title = document.text, document.metadata.get("title", "")
    if blank(text) and blank(title):
        remarks.add("contents without a text are left out", place)
        return
    if len(text) > TEXT_CHARS:
        remarks.add(f"a text of more than {TEXT_CHARS} characters is cut", place)
        text = text[:TEXT_CHARS]
    uris = [bare(one.uri) for one in document.subjects if one.uri is not None]
    labels = [one.label for one in document.subjects if one.uri is None and one.label is not None]
    fields = {
        "id": document.document_id or _hashed(text, title),
        "title": title,
        "text": text,
        "accepted": tuple(dict.fromkeys(uris)),
    }
    yield _made(place, fields, tuple(dict.fromkeys(labels)))


def document_of(place: str, value: bytes | str) -> Document | Wrong:
    """Annif's JSON."""
    try:
        return Document.model_validate_json(value)
    except ValidationError as error:
        return Wrong(place, str(poison(error, Document)))


def _hashed(*texts: str) -> str:
    return "text-" + hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]


def _made(place: str, fields: Mapping[str, object], labels: tuple[str, ...] = ()) -> Known | Wrong:
    try:
        return Known(place, Exemplar.model_validate(fields), labels)
    except ValidationError as error:
        return Wrong(place, str(poison(error, Exemplar)))


def _json_lines(name: str, stream: BinaryIO, remarks: Remarks) -> Iterator[Known | Wrong]:
    """Exemplars as on the topic; a line without an id is Annif's."""
    for number, line in text_lines(name, stream):
        if not line.strip():
            continue
        place = f"{name}:{number}"
        try:
            is_ours = "id" in from_json(line)
        except (ValueError, TypeError):
            # The contract's parser reports the fault.
            is_ours = True
        if is_ours:
            yield _parsed(place, line)
        else:
            document = document_of(place, line)
            yield from [document] if isinstance(document, Wrong) else of_annif(place, document, remarks)


def _parsed(place: str, line: str) -> Known | Wrong:
    try:
        return Known(place, parse(line.strip().encode(), Exemplar))
    except Poison as error:
        return Wrong(place, str(error))


def _table(name: str, stream: BinaryIO, delimiter: str, remarks: Remarks) -> Iterator[Known | Wrong]:
    for row in rows(name, stream, delimiter, _lacking):
        if isinstance(row, Wrong):
            yield row
        elif ANNIF_URIS in row.cells:
            document = _annif_row(row)
            yield from [document] if isinstance(document, Wrong) else of_annif(row.place, document, remarks)
        else:
            for column in row.besides(COLUMNS):
                remarks.add(f"column {shorten(column)} is ignored; the columns are {', '.join(COLUMNS)}", row.place)
            yield _made(row.place, _fields(row))


def _lacking(header: Sequence[str]) -> str | None:
    if {"id", "accepted"} <= set(header) or {"text", ANNIF_URIS} <= set(header):
        return None
    return f"columns `id` and `accepted`, or Annif's `text` and `{ANNIF_URIS}`"


def _fields(row: Row) -> dict[str, object]:
    plain = {column: row.cells[column] for column in ("id", "title", "text") if column in row.cells}
    times = {"time": row.cells["time"]} if row.cells.get("time") else {}
    return {**plain, **times, **{column: split(row.cells.get(column, "")) for column in LISTS}}


def _annif_row(row: Row) -> Document | Wrong:
    uris = row.cells[ANNIF_URIS].split()
    if several := [uri for uri in uris if _SEVERAL.search(bare(uri))]:
        return Wrong(row.place, f"{ANNIF_URIS}: {shorten(several[0])} is wrong, expected URIs with spaces between")
    subjects = tuple(_Subject(uri=uri) for uri in uris)
    title = {"title": row.cells["title"]} if "title" in row.cells else {}
    identity = row.cells.get("document_id") or None
    return Document(document_id=identity, text=row.cells.get("text", ""), metadata=title, subjects=subjects)


def _short_texts(name: str, stream: BinaryIO, remarks: Remarks) -> Iterator[Known | Wrong]:
    """Annif's short texts: text, tab, URIs in angle brackets with spaces between."""
    for number, line in text_lines(name, stream):
        if not line.strip():
            continue
        place = f"{name}:{number}"
        text, tab, uris = line.rstrip("\r\n").partition("\t")
        if not tab:
            yield Wrong(place, f"{shorten(text)} is wrong, expected text, tab, <URI> <URI>")
        elif strange := [uri for uri in uris.split() if bare(uri) == uri or _SEVERAL.search(bare(uri))]:
            # A table that is not ours would become decisions with words as tags.
            yield Wrong(place, f"{shorten(strange[0])} is wrong, expected text, tab, <URI> <URI>")
        else:
            subjects = tuple(_Subject(uri=uri) for uri in uris.split())
            yield from of_annif(place, Document(text=text, subjects=subjects), remarks)
