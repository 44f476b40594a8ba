"""Convert SKOS to tags (W3C Recommendation, SKOS Reference, 18 August 2009).

Statements arrive in any order, so they are sorted on disk first. A concept's IRI is the tag's id. Labels in the chosen
language, or without one, are name and aliases; preferred labels in other languages are `names`. Concepts marked
owl:deprecated are retired, in favour of those that dct:isReplacedBy names.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import BinaryIO, Final
from urllib.parse import unquote

from tagbus.stream.contract.fields import TITLE_CHARS
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.vocabulary.entry import (
    SHOWN,
    Choice,
    Deprecated,
    Read,
    Remarks,
    choose_language,
    made,
    matches,
)
from tagbus.stream.vocabulary.rdf.statements import BLANK, RdfForm, Statement, statements
from tagbus.stream.vocabulary.scratch import Scratch, Value

SKOS: Final = "http://www.w3.org/2004/02/skos/core#"
RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
OWL: Final = "http://www.w3.org/2002/07/owl#"
REPLACED_BY: Final = "http://purl.org/dc/terms/isReplacedBy"
# For ids that are not IRIs, and scopes: SKOS has no terms for them.
TAG_IRI: Final = "urn:tagbus:tag:"
SCOPE: Final = "urn:tagbus:scope"

# Properties in the order of a concept's rows: a label from an earlier one is preferred.
(PREF, RDFS_LABEL, ALT, HIDDEN, NOTATION, MATCHED, DEFINITION, SCOPE_NOTE, BROADER, IN_SCOPE, REPLACED) = range(11)
(NARROWER, EXACT, TYPE, IN_SCHEME, TOP, MEMBER, MEMBERS, FIRST, REST, RDF_VALUE, GONE) = range(11, 22)
_NUMBERS: Final = {
    f"{SKOS}prefLabel": PREF,
    "http://www.w3.org/2000/01/rdf-schema#label": RDFS_LABEL,
    f"{SKOS}altLabel": ALT,
    f"{SKOS}hiddenLabel": HIDDEN,
    f"{SKOS}notation": NOTATION,
    f"{SKOS}definition": DEFINITION,
    f"{SKOS}scopeNote": SCOPE_NOTE,
    f"{SKOS}broader": BROADER,
    SCOPE: IN_SCOPE,
    f"{SKOS}narrower": NARROWER,
    f"{SKOS}exactMatch": EXACT,
    f"{RDF}type": TYPE,
    f"{SKOS}inScheme": IN_SCHEME,
    f"{SKOS}topConceptOf": IN_SCHEME,
    f"{SKOS}hasTopConcept": TOP,
    f"{SKOS}member": MEMBER,
    f"{SKOS}memberList": MEMBERS,
    f"{RDF}first": FIRST,
    f"{RDF}rest": REST,
    f"{RDF}value": RDF_VALUE,
    f"{OWL}deprecated": GONE,
    REPLACED_BY: REPLACED,
}
_TYPES: Final = tuple(f"{SKOS}{name}" for name in ("Concept", "ConceptScheme", "Collection", "OrderedCollection"))
_SCHEMA: Final = """
CREATE TABLE statement (subject TEXT, property INTEGER, language TEXT, value TEXT, is_text INTEGER,
    PRIMARY KEY (subject, property, language, value)) WITHOUT ROWID;
CREATE TABLE chosen (id TEXT PRIMARY KEY, gone INTEGER) WITHOUT ROWID;
CREATE TABLE member (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""


def read(name: str, stream: BinaryIO, form: RdfForm, choice: Choice, remarks: Remarks) -> Iterator[Read]:
    """Read the concepts of a file, by id. Raises UserError for a file that is not RDF, a missing scheme or collection,
    and labels in several languages of which none is chosen."""
    with Scratch(_SCHEMA) as scratch:
        scratch.fill(
            "INSERT OR IGNORE INTO statement VALUES (?, ?, ?, ?, ?)", _numbered(statements(name, stream, form))
        )
        _complete(scratch)
        _choose(scratch, name, choice, remarks)
        _match(scratch)
        if bare := scratch.number(_BARE):
            remarks.add("concepts without a label are left out", name, bare)
        language = choose_language(name, _languages(scratch), choice)
        for (iri,) in scratch.rows(_RETIRED):
            yield Deprecated(f"{name}: {shorten(iri, 120)}", tag_id(str(iri)))
        for iri, rows in groupby(scratch.rows(_CHOSEN), itemgetter(0)):
            yield _concept(name, str(iri), rows, language, choice, remarks)


def tag_id(iri: str) -> str:
    """The tag's id: its IRI, or the id that export turned into one."""
    return unquote(iri.removeprefix(TAG_IRI)) if iri.startswith(TAG_IRI) else iri


def _numbered(found: Iterator[Statement]) -> Iterator[tuple[Value, ...]]:
    for one in found:
        number = _NUMBERS.get(one.property)
        if number is None or (number == TYPE and one.value not in _TYPES):
            continue
        if number == GONE and one.value not in {"true", "1"}:
            continue
        yield one.subject, number, one.language or "", one.value, one.language is not None


def _complete(scratch: Scratch) -> None:
    """Invert inverse properties, and replace resources that contain a text by that text."""
    for source, target in ((NARROWER, BROADER), (TOP, IN_SCHEME)):
        scratch.execute(
            "INSERT OR IGNORE INTO statement SELECT value, ?, '', subject, 0 FROM statement"
            " WHERE property = ? AND NOT is_text",
            (target, source),
        )
    scratch.execute(
        "INSERT OR IGNORE INTO statement SELECT note.subject, note.property, text.language, text.value, 1"
        " FROM statement note JOIN statement text ON text.subject = note.value AND text.property = ?"
        " WHERE note.property IN (?, ?) AND NOT note.is_text",
        (RDF_VALUE, DEFINITION, SCOPE_NOTE),
    )


# S608 is about values from outside: these queries are built only from constants of this module.
_IS_BLANK: Final = f"substr(subject, 1, 2) = '{BLANK}'"
_GONE: Final = (
    f"SELECT DISTINCT subject FROM statement WHERE property = {GONE} AND NOT {_IS_BLANK}"  # noqa: S608
    " AND subject IN (SELECT id FROM member)"
)


def _choose(scratch: Scratch, name: str, choice: Choice, remarks: Remarks) -> None:
    """Fill `member` with the resources of scheme and collection, `chosen` with concepts in force among them and
    concepts that those replaced."""
    scratch.execute("INSERT INTO member SELECT DISTINCT subject FROM statement")
    if (iri := choice.scheme) is not None and not _keep(
        scratch, "SELECT subject FROM statement WHERE property = ? AND value = ?", (IN_SCHEME, iri)
    ):
        found = _listed(scratch, "SELECT DISTINCT value FROM statement WHERE property = ?", (IN_SCHEME,))
        raise UserError(f"{name}: scheme {shorten(iri, 120)} has no concepts; expected one of {found}")
    if (iri := choice.collection) is not None and not _keep(scratch, _PARTS, (iri, MEMBER, MEMBERS, FIRST, REST, iri)):
        query = "SELECT DISTINCT subject FROM statement WHERE property IN (?, ?)"
        found = _listed(scratch, query, (MEMBER, MEMBERS))
        raise UserError(f"{name}: collection {shorten(iri, 120)} has no members; expected one of {found}")
    scratch.execute(
        "INSERT INTO chosen SELECT DISTINCT subject, 0 FROM statement WHERE property = ? AND value = ?"  # noqa: S608
        f" AND subject IN (SELECT id FROM member) AND subject NOT IN ({_GONE}) AND NOT {_IS_BLANK}",
        (TYPE, _TYPES[0]),
    )
    # A concept replaced by a replaced concept is found in the next round.
    while scratch.execute(_SUCCEEDED) > 0:
        pass
    if halves := scratch.number(_HALVES):
        remarks.add(
            "deprecated concepts with several successors, of which one is not among those read, are only retired",
            name,
            halves,
        )
    blank = scratch.number(
        f"SELECT COUNT(*) FROM statement WHERE property = ? AND value = ? AND {_IS_BLANK}",  # noqa: S608
        (TYPE, _TYPES[0]),
    )
    if blank:
        remarks.add("concepts without an IRI are left out", name, blank)
    if untyped := scratch.number(_UNTYPED, (PREF, TYPE)):
        remarks.add("subjects with a skos:prefLabel that are not of type skos:Concept are left out", name, untyped)


_RETIRED: Final = f"{_GONE} AND subject NOT IN (SELECT id FROM chosen) ORDER BY subject"  # noqa: S608

_UNTYPED: Final = (
    f"SELECT COUNT(DISTINCT subject) FROM statement WHERE property = ? AND NOT {_IS_BLANK}"  # noqa: S608
    f" AND subject IN (SELECT id FROM member) AND subject NOT IN ({_GONE})"
    " AND subject NOT IN (SELECT subject FROM statement WHERE property = ?)"
)

# Deprecated concepts with a label and a known successor.
_HEIRS: Final = (
    f"FROM statement WHERE property = {REPLACED} AND subject IN ({_GONE})"  # noqa: S608
    " AND value <> subject AND value IN (SELECT id FROM chosen)"
    f" AND subject IN (SELECT subject FROM statement WHERE property IN ({PREF}, {RDFS_LABEL}) AND is_text)"
)
# With the known ones alone, a split would be a merge.
_SUCCEEDED: Final = (
    f"INSERT OR IGNORE INTO chosen SELECT DISTINCT subject, 1 {_HEIRS}"  # noqa: S608
    f" AND subject NOT IN (SELECT subject FROM statement WHERE property = {REPLACED} AND NOT is_text"
    " AND value <> subject AND value NOT IN (SELECT id FROM chosen))"
)
_HALVES: Final = f"SELECT COUNT(DISTINCT subject) {_HEIRS} AND subject NOT IN (SELECT id FROM chosen)"  # noqa: S608

# The members of a collection, of its nested collections, and of the lists of ordered ones.
_PARTS: Final = (
    "WITH RECURSIVE part(id) AS (SELECT ? UNION SELECT value FROM part JOIN statement ON subject = part.id"
    " AND property IN (?, ?, ?, ?) AND NOT is_text) SELECT id FROM part WHERE id <> ?"
)


def _keep(scratch: Scratch, query: str, values: tuple[Value, ...]) -> bool:
    """Keep the members that a query returns; returns whether there are any."""
    scratch.execute(f"DELETE FROM member WHERE id NOT IN ({query})", values)  # noqa: S608
    return scratch.number("SELECT COUNT(*) FROM member") > 0


def _listed(scratch: Scratch, query: str, values: tuple[Value, ...]) -> str:
    found = [shorten(value, 120) for (value,) in scratch.rows(f"{query} LIMIT {SHOWN}", values)]
    return ", ".join(found) or "none: the file has none"


def _match(scratch: Scratch) -> None:
    """Add labels of unchosen concepts that exactly match a chosen one: other names for the same."""
    for here, there in (("subject", "value"), ("value", "subject")):
        scratch.execute(
            "INSERT OR IGNORE INTO statement SELECT DISTINCT link.id, ?, label.language, label.value, 1"  # noqa: S608
            f" FROM (SELECT {here} AS id, {there} AS other FROM statement WHERE property = ? AND NOT is_text) AS link"
            " JOIN statement label ON label.subject = link.other AND label.property IN (?, ?, ?)"
            " WHERE link.id IN (SELECT id FROM chosen) AND link.other NOT IN (SELECT id FROM chosen)",
            (MATCHED, EXACT, PREF, ALT, HIDDEN),
        )


def _languages(scratch: Scratch) -> dict[str, int]:
    """The number of concepts with a preferred label, by language, most frequent first; with an rdfs:label where none
    has a preferred one."""
    for label in (PREF, RDFS_LABEL):
        rows = scratch.rows(
            "SELECT language, COUNT(DISTINCT subject) AS count FROM statement JOIN chosen ON id = subject"
            " WHERE property = ? AND is_text AND NOT gone GROUP BY language ORDER BY count DESC, language",
            (label,),
        )
        if counts := {str(language): int(count or 0) for language, count in rows}:
            return counts
    return {}


# Every row of the chosen concepts; `known`: whether a broader concept or a successor is chosen.
_CHOSEN: Final = (
    "SELECT subject, property, language, value, is_text, known.id IS NOT NULL"  # noqa: S608
    " FROM chosen JOIN statement ON subject = chosen.id"
    f" LEFT JOIN chosen known ON known.id = value"
    f" AND (property = {BROADER} AND NOT known.gone OR property = {REPLACED})"
    f" WHERE property < {REPLACED} OR (property = {REPLACED} AND chosen.gone)"
    " ORDER BY subject, property, language, value"
)


# Chosen concepts that have none of these rows.
_BARE: Final = (
    f"SELECT COUNT(*) FROM chosen WHERE id NOT IN (SELECT subject FROM statement WHERE property < {REPLACED})"  # noqa: S608
)


@dataclass(slots=True)
class _Labels:
    """The texts of one concept, by their role in the tag."""

    names: dict[str, str] = field(default_factory=dict)
    spare: list[str] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _concept(
    name: str,
    iri: str,
    rows: Iterator[tuple[Value, ...]],
    language: str,
    choice: Choice,
    remarks: Remarks,
) -> Read:
    place = f"{name}: {shorten(iri, 120)}"
    labels, parents, scopes, successors = _Labels(), list[str](), list[str](), list[str]()
    for _, number, tongue, value, is_text, known in rows:
        text = str(value)
        if number == BROADER:
            if known:
                parents.append(tag_id(text))
            else:
                remarks.add("broader concepts that are not among those read are left out", place)
        elif number == IN_SCOPE:
            scopes.append(text)
        elif number == REPLACED:
            if known and text != iri:
                successors.append(tag_id(text))
            else:
                remarks.add("successors that are not among those read are left out", place)
        elif is_text and isinstance(number, int):
            _sort(labels, number, str(tongue), text, language, choice)
    title = _title(labels, language, place, remarks)
    return made(
        place,
        {
            "id": tag_id(iri),
            "name": title,
            "description": _described(labels.notes, place, remarks),
            "aliases": tuple(dict.fromkeys(one for one in labels.aliases if one.strip() and one != title)),
            "parents": tuple(parents),
            "names": {tongue: text for tongue, text in labels.names.items() if tongue and text.strip()},
            "scopes": tuple(scopes),
            "replaced_by": tuple(successors),
        },
    )


def _sort(labels: _Labels, number: int, tongue: str, text: str, language: str, choice: Choice) -> None:
    """Sort one text into its role."""
    here = tongue == "" or matches(language, tongue)
    if number == PREF:
        if tongue not in labels.names:
            labels.names[tongue] = text
        elif here:
            labels.spare.append(text)
    elif number == RDFS_LABEL:
        labels.names.setdefault(tongue, text)
    elif number in (DEFINITION, SCOPE_NOTE):
        if here:
            labels.notes.append(text)
    elif number == NOTATION:
        # A typed text without a language.
        if choice.notations:
            labels.aliases.append(text)
    elif here or any(matches(one, tongue) for one in choice.alias_languages):
        labels.aliases.append(text)


def _title(labels: _Labels, language: str, place: str, remarks: Remarks) -> str:
    """Move the name out of `names`: the chosen language's, else one without a language, else English, else any."""
    chosen = [tongue for tongue in labels.names if matches(language, tongue)]
    # An exact match before one of its regions.
    chosen.sort(key=len)
    tongue = next((one for one in (*chosen, "", "en", *labels.names) if one in labels.names), None)
    if tongue is None:
        return ""
    if tongue not in ("", *chosen):
        lacking = f"in {language}" if language else "without a language"
        remarks.add(f"has no label {lacking}: the name is in {tongue}", place)
    title = labels.names.pop(tongue)
    labels.aliases[:0] = labels.spare
    if "" in labels.names:
        labels.aliases.insert(0, labels.names.pop(""))
    return title


def _described(notes: list[str], place: str, remarks: Remarks) -> str:
    text = "\n".join(dict.fromkeys(notes))
    if len(text) > TITLE_CHARS:
        remarks.add(f"a description of more than {TITLE_CHARS} characters is cut", place)
    return text[:TITLE_CHARS]
