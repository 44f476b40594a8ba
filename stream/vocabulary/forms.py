"""The forms of a vocabulary file: detect, read and write them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import BinaryIO, Final, Literal, TypeAlias, get_args

from tagbus.stream.contract.codec import encode, parse
from tagbus.stream.contract.events import Tag
from tagbus.stream.errors import Poison, UserError
from tagbus.stream.vocabulary import tables
from tagbus.stream.vocabulary.entry import Choice, Entry, Read, Remarks, Wrong
from tagbus.stream.vocabulary.source import BOM, text_lines

Form: TypeAlias = Literal["turtle", "ntriples", "rdfxml", "jsonld", "csv", "tsv", "jsonl", "annif"]

SUFFIXES: Final[dict[str, Form]] = {
    ".ttl": "turtle",
    ".nt": "ntriples",
    ".rdf": "rdfxml",
    ".xml": "rdfxml",
    ".owl": "rdfxml",
    ".skos": "rdfxml",
    ".jsonld": "jsonld",
    ".json": "jsonld",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


def form_of(path: PurePath, first: bytes = b"") -> Form:
    """The form of a file by its extension; a TSV whose `first` bytes begin with `<` is Annif's.

    Raises UserError.
    """
    form = SUFFIXES.get(path.suffix.casefold())
    if form is None:
        raise UserError(f"{path}: its form is not clear from its name; give --form: {', '.join(get_args(Form))}")
    return "annif" if form == "tsv" and first.removeprefix(BOM).startswith(b"<") else form


def read(name: str, stream: BinaryIO, form: Form, choice: Choice, remarks: Remarks) -> Iterator[Read]:
    """Read the tags of a file. Raises UserError, in one line with the place, for a file of another form."""
    match form:
        case "csv" | "tsv":
            return tables.read(name, stream, _delimiter(form), choice, remarks)
        case "annif":
            return tables.read_annif(name, stream, choice)
        case "jsonl":
            return _read_lines(name, stream)
        case _:
            with _extra():
                from tagbus.stream.vocabulary import skos
            return skos.read(name, stream, form, choice, remarks)


def expected(form: Form) -> str:
    """What a file of this form must have to yield a tag."""
    match form:
        case "csv" | "tsv":
            return "a row for each tag below the header"
        case "annif":
            return "<URI>, tab, label on each line"
        case "jsonl":
            return "a tag as a JSON object on each line"
        case "jsonld":
            return "JSON-LD with subjects of type skos:Concept; for tags as JSON objects, one a line, --form jsonl"
        case _:
            return "subjects of type skos:Concept with a skos:prefLabel"


def write(tags: Callable[[], Iterable[Tag]], output: BinaryIO, form: Form, language: str | None = None) -> None:
    """Write tags. `tags` is called twice for a table, which has a column per language; `language`: of the names, for
    SKOS. Raises UserError for an invalid language."""
    match form:
        case "csv" | "tsv":
            languages = sorted({language for tag in tags() for language in tag.names})
            tables.write(tags(), languages, output, _delimiter(form))
        case "annif":
            tables.write_annif(tags(), output)
        case "jsonl":
            for tag in tags():
                output.write(encode(tag) + b"\n")
        case _:
            with _extra():
                from tagbus.stream.vocabulary import skos_write
            skos_write.write(tags(), output, form, language)


def _delimiter(form: Literal["csv", "tsv"]) -> str:
    return "," if form == "csv" else "\t"


def _read_lines(name: str, stream: BinaryIO) -> Iterator[Read]:
    for number, line in text_lines(name, stream):
        if not line.strip():
            continue
        place = f"{name}:{number}"
        try:
            yield Entry(place, parse(line.strip().encode(), Tag))
        except Poison as error:
            yield Wrong(place, str(error))


@contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise UserError("SKOS needs pyoxigraph: `pip install 'tagbus[skos]'`") from None
