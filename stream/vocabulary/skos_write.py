"""Write tags as SKOS. Ids that are not IRIs become one, and `skos.read` converts them back."""

from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final
from urllib.parse import quote

from tagbus.stream.contract.events import Tag
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.vocabulary.rdf.statements import RdfForm, Statement, is_iri, is_language
from tagbus.stream.vocabulary.rdf.statements import write as write_rdf
from tagbus.stream.vocabulary.skos import OWL, RDF, REPLACED_BY, SCOPE, SKOS, TAG_IRI

_PREFIXES: Final = {"skos": SKOS}


def write(tags: Iterable[Tag], output: BinaryIO, form: RdfForm, language: str | None = None) -> None:
    """Write tags as concepts. `language`: of their names, descriptions and aliases.

    Raises UserError for an invalid language, or one that a tag has in `names`.
    """
    if language is not None and not is_language(language):
        raise UserError(f"language {shorten(language)} is wrong, expected a BCP 47 tag, for instance `en`")
    write_rdf((one for tag in tags for one in _statements(tag, language or "")), output, form, _PREFIXES)


def tag_iri(tag_id: str) -> str:
    """The IRI of a tag: its id, or one derived from it."""
    if is_iri(tag_id) and not tag_id.startswith(TAG_IRI):
        return tag_id
    return TAG_IRI + quote(tag_id, safe="")


def _statements(tag: Tag, language: str) -> Iterator[Statement]:
    iri = tag_iri(tag.id)

    def text(name: str, value: str, tongue: str = language) -> Statement:
        return Statement(iri, SKOS + name, value, tongue)

    yield Statement(iri, f"{RDF}type", f"{SKOS}Concept", None)
    yield text("prefLabel", tag.name)
    for tongue, name in sorted(tag.names.items()):
        # A name in the language of the names would be a second one.
        if tongue.casefold() != language.casefold() and is_language(tongue):
            yield text("prefLabel", name, tongue)
    yield from (text("altLabel", alias) for alias in tag.aliases)
    if tag.description:
        yield text("definition", tag.description)
    yield from (Statement(iri, f"{SKOS}broader", tag_iri(parent), None) for parent in tag.parents)
    yield from (Statement(iri, SCOPE, scope, "") for scope in tag.scopes)
    if tag.replaced_by:
        yield Statement(iri, f"{OWL}deprecated", "true", "")
    yield from (Statement(iri, REPLACED_BY, tag_iri(one), None) for one in tag.replaced_by)
