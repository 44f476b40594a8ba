"""A real thesaurus, read in place: the counts equal rdflib's."""

import lzma
from collections import Counter
from pathlib import Path

import pytest
import rdflib
from rdflib.namespace import DCTERMS, OWL, SKOS

from tagbus.stream.vocabulary import forms
from tagbus.stream.vocabulary.entry import Choice, Deprecated, Entry, Remarks, Wrong

FILE = Path(__file__).parents[3] / "shared" / "data" / "stw" / "stw-skos.ttl.xz"

pytestmark = pytest.mark.skipif(not FILE.exists(), reason="no thesaurus beside the checkout")


@pytest.fixture(scope="module")
def graph() -> rdflib.Graph:
    with lzma.open(FILE) as stream:
        return rdflib.Graph().parse(data=stream.read(), format="turtle")


@pytest.fixture(scope="module")
def concepts(graph: rdflib.Graph) -> set[rdflib.term.Node]:
    """The concepts in force."""
    return set(graph.subjects(rdflib.RDF.type, SKOS.Concept)) - set(
        graph.subjects(OWL.deprecated, rdflib.Literal(lexical_or_value=True))
    )


@pytest.fixture(scope="module")
def found() -> list[Entry | Deprecated | Wrong]:
    with lzma.open(FILE) as stream:
        return list(forms.read("stw", stream, "turtle", Choice(language="en", alias_languages=("de",)), Remarks()))


def entries(found: list[Entry | Deprecated | Wrong]) -> list[Entry]:
    return [one for one in found if isinstance(one, Entry) and not one.tag.replaced_by]


def test_each_concept_is_a_tag(found: list[Entry | Deprecated | Wrong], concepts: set[rdflib.term.Node]) -> None:
    assert {one.tag.id for one in entries(found)} == {str(one) for one in concepts}
    assert len(concepts) > 6_000
    assert not any(isinstance(one, Wrong) for one in found)


def test_preferred_labels_by_language(
    found: list[Entry | Deprecated | Wrong], concepts: set[rdflib.term.Node], graph: rdflib.Graph
) -> None:
    labels = Counter(
        label.language
        for one, label in graph.subject_objects(SKOS.prefLabel)
        if one in concepts and isinstance(label, rdflib.Literal)
    )
    read = Counter(language for one in entries(found) for language in one.tag.names)
    assert (len(entries(found)), read) == (labels["en"], {"de": labels["de"]})


def test_alternative_labels(
    found: list[Entry | Deprecated | Wrong], concepts: set[rdflib.term.Node], graph: rdflib.Graph
) -> None:
    """One that is also the name, or also an alternative label in the other language, counts once."""
    names = {str(one): str(label) for one, label in graph.subject_objects(SKOS.prefLabel) if label.language == "en"}
    expected = {
        (str(one), str(label))
        for one, label in graph.subject_objects(SKOS.altLabel)
        if one in concepts and str(label) != names[str(one)]
    }
    assert {(one.tag.id, alias) for one in entries(found) for alias in one.tag.aliases} == expected


def test_broader(found: list[Entry | Deprecated | Wrong], concepts: set[rdflib.term.Node], graph: rdflib.Graph) -> None:
    pairs = {(child, parent) for child, parent in graph.subject_objects(SKOS.broader)}
    pairs |= {(child, parent) for parent, child in graph.subject_objects(SKOS.narrower)}
    expected = {(str(child), str(parent)) for child, parent in pairs if {child, parent} <= concepts}
    assert {(one.tag.id, parent) for one in entries(found) for parent in one.tag.parents} == expected


def test_deprecated(found: list[Entry | Deprecated | Wrong], graph: rdflib.Graph) -> None:
    expected = {str(one) for one, value in graph.subject_objects(OWL.deprecated) if str(value) == "true"}
    replaced = {one.tag.id for one in found if isinstance(one, Entry) and one.tag.replaced_by}
    assert {one.id for one in found if isinstance(one, Deprecated)} | replaced == expected
    assert len(expected) == 1_151


def test_successors(found: list[Entry | Deprecated | Wrong], graph: rdflib.Graph) -> None:
    pairs = {(one.tag.id, other) for one in found if isinstance(one, Entry) for other in one.tag.replaced_by}
    stated = {(str(one), str(other)) for one, other in graph.subject_objects(DCTERMS.isReplacedBy)}
    assert pairs <= stated
    left = {other for _, other in stated - pairs}
    assert len(pairs) > 900
    assert not left & {one.tag.id for one in entries(found)}
