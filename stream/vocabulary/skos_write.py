"""Write tags as SKOS. Ids that are not IRIs become one, and `skos.read` converts them back."""

import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final
from urllib.parse import quote

from tagbus.stream.contract.events import Tag
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.vocabulary.rdf.statements import RdfForm, Statement, is_iri, is_language
from tagbus.stream.vocabulary.rdf.statements import write as write_rdf
from tagbus.stream.vocabulary.skos import OWL, RDF, REPLACED_BY, SCOPE, SKOS, TAG_IRI, tag_id

_PREFIXES: Final = {"skos": SKOS}
_NOT_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def write(tags: Iterable[Tag], output: BinaryIO, form: RdfForm, language: str | None = None) -> None:
    """Write tags as concepts. `language`: of their names, descriptions and aliases.

    A name in that language besides `name`, or in one that RDF cannot express, becomes an alternative label. Raises
    UserError for an invalid language, and for a tag with a character that RDF/XML cannot hold.
    """
    if language is not None and not is_language(language):
        raise UserError(f"language {shorten(language)} is wrong, expected a BCP 47 tag, for instance `en`")
    found = (one for tag in tags for one in _statements(tag, language or ""))
    write_rdf(map(_checked, found) if form == "rdfxml" else found, output, form, _PREFIXES)


def tag_iri(name: str) -> str:
    """The IRI of a tag: its id, or one derived from it."""
    if is_iri(name) and not name.startswith(TAG_IRI):
        return name
    return TAG_IRI + quote(name, safe="")


def _checked(one: Statement) -> Statement:
    """A statement that XML 1.0 can hold. Raises UserError for any other: no parser would read the file."""
    if found := _NOT_XML.search(one.value):
        what = one.property.rpartition("#")[2]
        raise UserError(
            f"tag {shorten(tag_id(one.subject), 120)}: {what} has the character U+{ord(found[0]):04X}, which RDF/XML"
            " cannot hold; expected another format, for instance --to turtle"
        )
    return one


def _statements(tag: Tag, language: str) -> Iterator[Statement]:
    iri = tag_iri(tag.id)

    def text(name: str, value: str, tongue: str = language) -> Statement:
        return Statement(iri, SKOS + name, value, tongue)

    yield Statement(iri, f"{RDF}type", f"{SKOS}Concept", None)
    yield text("prefLabel", tag.name)
    aliases = list(tag.aliases)
    for tongue, name in sorted(tag.names.items()):
        # SKOS allows one preferred label a language.
        if tongue.casefold() != language.casefold() and is_language(tongue):
            yield text("prefLabel", name, tongue)
        elif name != tag.name:
            aliases.append(name)
    yield from (text("altLabel", alias) for alias in dict.fromkeys(aliases))
    if tag.description:
        yield text("definition", tag.description)
    yield from (Statement(iri, f"{SKOS}broader", tag_iri(parent), None) for parent in tag.parents)
    yield from (Statement(iri, SCOPE, scope, "") for scope in tag.scopes)
    if tag.replaced_by:
        yield Statement(iri, f"{OWL}deprecated", "true", "")
    yield from (Statement(iri, REPLACED_BY, tag_iri(one), None) for one in tag.replaced_by)
