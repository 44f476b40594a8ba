"""Read and write RDF statements as Turtle, N-Triples, RDF/XML and JSON-LD, one at a time. Nothing is fetched.

Parsed by pyoxigraph (MIT or Apache-2.0), which yields statements while it reads. For 30,000 concepts of 12 statements
it takes 0.5 to 0.9 CPU seconds, and the whole import 4.4 to 6.6; rdflib, which holds the graph and fetches the contexts
that JSON-LD names, takes 10 to 19, and 500 MB more (`bench/vocabulary.py`). Its wheel has 9.5 MB and no dependencies.
It is the extra `skos`, as a worker reads no vocabulary.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, BinaryIO, Final, Literal, TypeAlias, cast

import pyoxigraph as oxigraph

from tagbus.stream.errors import UserError
from tagbus.stream.vocabulary.rdf.guards import JsonGuard, XmlGuard
from tagbus.stream.vocabulary.source import Guard, Source

RdfForm: TypeAlias = Literal["turtle", "ntriples", "rdfxml", "jsonld"]

FORMATS: Final[dict[RdfForm, oxigraph.RdfFormat]] = {
    "turtle": oxigraph.RdfFormat.TURTLE,
    "ntriples": oxigraph.RdfFormat.N_TRIPLES,
    "rdfxml": oxigraph.RdfFormat.RDF_XML,
    "jsonld": oxigraph.RdfFormat.JSON_LD,
}
BLANK: Final = "_:"
# Blank nodes in a row: those of a nested list are all open, at 350 bytes each.
BLANK_RUN: Final = 1_000_000
_PLACE: Final = re.compile(r"^(Parser error (at|between) [^:]*|syntax error): ")
# pyoxigraph's message for a context that is an address.
_REMOTE: Final = "LoadDocumentCallback"


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. `value`: an IRI, `_:name` of a blank node, or a text; `language`: of a text, `""` if it has none,
    and None if the value is not a text.
    """

    subject: str
    property: str
    value: str
    language: str | None


def statements(name: str, stream: BinaryIO, form: RdfForm) -> Iterator[Statement]:
    """Read the statements of a file. Raises UserError that names the place."""
    source = Source(name, stream, _guard(form))
    blank = 0
    try:
        for quad in oxigraph.parse(cast(IO[bytes], source), FORMATS[form]):  # of which it calls `read`
            subject = _node(quad.subject)
            blank = blank + 1 if subject.startswith(BLANK) else 0
            if blank > BLANK_RUN:
                raise UserError(f"{name}:{source.line}: more than {BLANK_RUN} blank nodes in a row")
            value = quad.object
            if isinstance(value, oxigraph.Literal):
                yield Statement(subject, quad.predicate.value, value.value, value.language or "")
            else:
                yield Statement(subject, quad.predicate.value, _node(value), None)
    except (SyntaxError, MemoryError, ValueError, OSError) as error:
        raise source.failure or _explained(source, error) from None


def write(triples: Iterable[Statement], output: BinaryIO, form: RdfForm, prefixes: dict[str, str]) -> None:
    """Write statements as they arrive."""
    oxigraph.serialize(map(_triple, triples), output, FORMATS[form], prefixes=prefixes)


def is_iri(text: str) -> bool:
    """Whether a text is an absolute IRI."""
    try:
        oxigraph.NamedNode(text)
    except ValueError:
        return False
    return True


def is_language(text: str) -> bool:
    """Whether a text is a language tag in RDF's sense."""
    try:
        oxigraph.Literal("", language=text)
    except ValueError:
        return False
    return True


def _guard(form: RdfForm) -> Guard | None:
    match form:
        case "rdfxml":
            return XmlGuard()
        case "jsonld":
            return JsonGuard()
        case "turtle" | "ntriples":
            return None


def _node(term: object) -> str:
    if isinstance(term, oxigraph.NamedNode):
        return term.value
    # A blank node, or a statement about a statement: never a concept.
    return f"{BLANK}{term.value}" if isinstance(term, oxigraph.BlankNode) else BLANK


def _triple(one: Statement) -> oxigraph.Triple:
    value: oxigraph.NamedNode | oxigraph.Literal
    if one.language is None:
        value = oxigraph.NamedNode(one.value)
    else:
        value = oxigraph.Literal(one.value, language=one.language or None)
    return oxigraph.Triple(oxigraph.NamedNode(one.subject), oxigraph.NamedNode(one.property), value)


def _explained(source: Source, error: Exception) -> UserError:
    """The parser's error as one line."""
    words = "".join(letter for letter in _PLACE.sub("", str(error.args[0])) if letter.isprintable())
    if isinstance(error, MemoryError):
        return UserError(f"{source.name}:{source.line}: a value of more than 16 MiB ({words})")
    if _REMOTE in words:
        return UserError(f"{source.name}: its @context is elsewhere and nothing is fetched: put it into the file")
    line = error.lineno if isinstance(error, SyntaxError) and error.lineno else source.line
    return UserError(f"{source.name}:{line}: {words[:300]}")
