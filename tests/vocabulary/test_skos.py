"""SKOS to tags: the mapping of statements, in each of the four forms."""

import pytest
import rdflib

from tagbus.stream.contract.events import Tag
from tagbus.stream.errors import UserError
from tagbus.stream.vocabulary.forms import Form
from tests.vocabulary.reading import HEAD, read

BEES = (
    HEAD
    + """
:bees a skos:Concept ;
    skos:prefLabel "bees"@en , "mehiläiset"@fi ;
    skos:altLabel "honeybees"@en , "tarhamehiläiset"@fi ;
    skos:hiddenLabel "beees"@en ;
    skos:definition "Insects that make honey."@en , "Hunajaa tekevät hyönteiset."@fi ;
    skos:scopeNote "Not wasps."@en ;
    skos:broader :insects ;
    skos:exactMatch <http://elsewhere.org/bee> .
:insects a skos:Concept ; skos:prefLabel "insects"@en , "hyönteiset"@fi ; skos:narrower :ants .
:ants a skos:Concept ; skos:prefLabel "ants"@en .
"""
)
# The same concept, serialized by rdflib.
FORMATS: dict[Form, str] = {"turtle": "turtle", "ntriples": "nt", "rdfxml": "xml", "jsonld": "json-ld"}


class TestConcept:
    @pytest.mark.parametrize("form", FORMATS)
    def test_labels_notes_and_broader_in_every_form(self, form: Form) -> None:
        text = rdflib.Graph().parse(data=BEES, format="turtle").serialize(format=FORMATS[form])
        tags = read(text, form, language="en").tags
        assert tags["http://example.org/bees"] == Tag(
            id="http://example.org/bees",
            name="bees",
            description="Insects that make honey.\nNot wasps.",
            aliases=("honeybees", "beees"),
            parents=("http://example.org/insects",),
            names={"fi": "mehiläiset"},
        )
        assert len(tags) == 3

    def test_narrower_is_broader_turned_round(self) -> None:
        assert read(BEES, language="en").tags["http://example.org/ants"].parents == ("http://example.org/insects",)

    def test_aliases_of_other_languages_are_asked_for(self) -> None:
        tag = read(BEES, language="en", alias_languages=["fi"]).tags["http://example.org/bees"]
        assert set(tag.aliases) == {"honeybees", "beees", "tarhamehiläiset"}

    def test_notations_are_asked_for(self) -> None:
        text = HEAD + ':a a skos:Concept ; skos:prefLabel "bees"@en ; skos:notation "V.13.02"^^<http://e.org/code> .'
        assert read(text, language="en").one().aliases == ()
        assert read(text, language="en", notations=True).one().aliases == ("V.13.02",)

    def test_a_label_without_the_language_gives_the_name_in_another_and_a_remark(self) -> None:
        found = read(BEES, language="fi")
        assert found.tags["http://example.org/ants"].name == "ants"
        assert found.remarks == ["file: 'http://example.org/ants': has no label in fi: the name is in en"]

    def test_a_region_of_the_language_counts_where_the_language_itself_is_missing(self) -> None:
        text = HEAD + ':a a skos:Concept ; skos:prefLabel "colour"@en-GB , "color"@en , "Farbe"@de .'
        assert read(text, language="en").one().name == "color"
        assert read(text.replace(', "color"@en', ""), language="en").one().name == "colour"

    def test_a_second_label_of_the_language_is_an_alias(self) -> None:
        tag = read(HEAD + ':a a skos:Concept ; skos:prefLabel "b" , "a" .').one()
        assert (tag.name, tag.aliases) == ("a", ("b",))

    def test_rdfs_label_names_a_concept_without_a_preferred_one(self) -> None:
        assert read(HEAD + ':a a skos:Concept ; rdfs:label "a" .').one().name == "a"
        assert read(HEAD + ':a a skos:Concept ; rdfs:label "b" ; skos:prefLabel "a" .').one().name == "a"

    def test_a_concept_without_any_label_is_left_out_and_that_is_said(self) -> None:
        found = read(HEAD + ':a a skos:Concept ; skos:prefLabel "a" . :b a skos:Concept .')
        assert (found.one().id, found.wrong) == ("http://example.org/a", [])
        assert found.remarks == ["file: concepts without a label are left out"]

    def test_a_note_may_be_a_resource(self) -> None:
        text = HEAD + ':a a skos:Concept ; skos:prefLabel "a" ; skos:definition [ rdf:value "What it is." ] .'
        assert read(text).one().description == "What it is."

    def test_a_description_that_is_too_long_is_cut_and_that_is_said(self) -> None:
        found = read(HEAD + f':a a skos:Concept ; skos:prefLabel "a" ; skos:definition "{"x" * 5000}" .')
        assert len(found.one().description) == 4096
        assert found.remarks == ["file: 'http://example.org/a': a description of more than 4096 characters is cut"]

    @pytest.mark.parametrize(
        ("statements", "reason"),
        [
            (f'skos:prefLabel "{"x" * 600}"', "name: "),
            ("skos:broader :b", "name: '' is wrong, expected a string of 1 to 512 characters"),
            ('skos:prefLabel " "', "name: "),
        ],
    )
    def test_an_invalid_tag_is_named_with_its_field(self, statements: str, reason: str) -> None:
        (wrong,) = read(HEAD + f":a a skos:Concept ; {statements} .").wrong
        assert wrong.place == "file: 'http://example.org/a'"
        assert wrong.reason.startswith(reason)

    def test_a_broader_concept_that_is_not_read_is_left_out_and_that_is_said(self) -> None:
        found = read(HEAD + ':a a skos:Concept ; skos:prefLabel "a" ; skos:broader <http://elsewhere.org/b> .')
        assert found.one().parents == ()
        assert found.remarks == [
            "file: 'http://example.org/a': broader concepts that are not among those read are left out"
        ]

    def test_a_concept_without_an_iri_is_left_out_and_that_is_said(self) -> None:
        found = read(HEAD + '[] a skos:Concept ; skos:prefLabel "a" .')
        assert (found.tags, found.remarks) == ({}, ["file: concepts without an IRI are left out"])

    def test_what_has_a_label_and_no_type_is_left_out_and_that_is_said(self) -> None:
        found = read(
            HEAD
            + ':a skos:prefLabel "a" . :b skos:prefLabel "b"@en , "c"@fi . :d a skos:Concept ; skos:prefLabel "d" .'
            ':s a skos:ConceptScheme ; skos:prefLabel "scheme" . :c a skos:Collection ; skos:prefLabel "collection" .'
            ':old owl:deprecated true ; skos:prefLabel "old" .'
        )
        assert list(found.tags) == ["http://example.org/d"]
        assert found.remarks == [
            "file: subjects with a skos:prefLabel that are not of type skos:Concept are left out (and 1 more)"
        ]

    def test_labels_of_what_matches_exactly_and_is_not_read_are_aliases(self) -> None:
        text = HEAD + (
            ':a a skos:Concept ; skos:prefLabel "car" ; skos:inScheme :mine ; skos:exactMatch :b .'
            ':b a skos:Concept ; skos:prefLabel "automobile" ; skos:altLabel "motorcar" ; skos:inScheme :theirs .'
        )
        assert read(text, scheme="http://example.org/mine").one().aliases == ("automobile", "motorcar")
        assert read(text).tags["http://example.org/a"].aliases == ()


class TestDeprecated:
    @pytest.mark.parametrize("value", ["true", '"true"', '"1"^^<http://www.w3.org/2001/XMLSchema#boolean>'])
    def test_it_is_no_tag_and_no_parent(self, value: str) -> None:
        found = read(
            HEAD + f':old a skos:Concept ; skos:prefLabel "old" ; owl:deprecated {value} .'
            ':a a skos:Concept ; skos:prefLabel "a" ; skos:broader :old .'
        )
        assert (found.one().parents, found.deprecated) == ((), ["http://example.org/old"])

    def test_false_is_not_deprecated(self) -> None:
        assert read(HEAD + ':a a skos:Concept ; skos:prefLabel "a" ; owl:deprecated false .').one().id

    def test_it_need_not_be_a_concept_any_more(self) -> None:
        found = read(HEAD + ':old owl:deprecated true . :a a skos:Concept ; skos:prefLabel "a" .')
        assert found.deprecated == ["http://example.org/old"]

    def test_its_successors_are_those_of_the_tag(self) -> None:
        found = read(
            HEAD + ':old rdfs:label "old" ; owl:deprecated true ; dct:isReplacedBy :a .'
            ':older skos:prefLabel "older" ; owl:deprecated true ; dct:isReplacedBy :old , "see old" .'
            ':a a skos:Concept ; skos:prefLabel "a" ; skos:broader :old ; dct:isReplacedBy :old .'
        )
        assert found.deprecated == []
        assert {tag.id: tag.replaced_by for tag in found.tags.values()} == {
            "http://example.org/a": (),
            "http://example.org/old": ("http://example.org/a",),
            "http://example.org/older": ("http://example.org/old",),
        }
        assert found.tags["http://example.org/old"].name == "old"
        assert (
            "file: 'http://example.org/older': successors that are not among those read are left out" in found.remarks
        )

    def test_a_split_is_not_read_as_a_merge_where_a_successor_is_missing(self) -> None:
        """What carries the old one would count for one of its successors, and no person has said for which."""
        found = read(
            HEAD + ':old rdfs:label "old" ; owl:deprecated true ; dct:isReplacedBy :a , :elsewhere .'
            ':older rdfs:label "older" ; owl:deprecated true ; dct:isReplacedBy :old .'
            ':a a skos:Concept ; skos:prefLabel "a" .'
        )
        assert found.one().id == "http://example.org/a"
        assert found.deprecated == ["http://example.org/old", "http://example.org/older"]
        assert found.remarks == [
            "file: deprecated concepts with several successors, of which one is not among those read, are only retired"
        ]

    @pytest.mark.parametrize(
        "more", ['rdfs:label "old" ; dct:isReplacedBy :b', "dct:isReplacedBy :a", 'rdfs:label "old"']
    )
    def test_without_a_label_or_an_existing_successor_it_is_only_retired(self, more: str) -> None:
        found = read(HEAD + f':old owl:deprecated true ; {more} . :a a skos:Concept ; skos:prefLabel "a" .')
        assert (len(found.tags), found.deprecated) == (1, ["http://example.org/old"])

    def test_concepts_that_replace_each_other_are_retired(self) -> None:
        text = ':{0} rdfs:label "x" ; owl:deprecated true ; dct:isReplacedBy :{1} .'
        found = read(HEAD + text.format("p", "q") + text.format("q", "p") + ':a a skos:Concept ; skos:prefLabel "a" .')
        assert found.deprecated == ["http://example.org/p", "http://example.org/q"]


class TestLanguages:
    def test_the_only_one_is_taken(self) -> None:
        tag = read(HEAD + ':a a skos:Concept ; skos:prefLabel "a"@sv ; skos:altLabel "b"@sv .').one()
        assert (tag.name, tag.names, tag.aliases) == ("a", {}, ("b",))

    def test_labels_without_a_language_are_the_names_where_all_have_one(self) -> None:
        tag = read(HEAD + ':a a skos:Concept ; skos:prefLabel "a" , "b"@sv .').one()
        assert (tag.name, tag.names) == ("a", {"sv": "b"})

    def test_several_must_be_chosen_from(self) -> None:
        with pytest.raises(UserError) as raised:
            read(BEES)
        assert str(raised.value) == (
            "file has labels in several languages, 'en' (3), 'fi' (2): --language says which is the name"
        )

    def test_those_of_rdfs_labels_too_where_no_concept_has_another(self) -> None:
        text = HEAD + ':a a skos:Concept ; rdfs:label "a"@sv , "b"@fi .'
        with pytest.raises(UserError, match=r"labels in several languages, 'fi' \(1\), 'sv' \(1\): --language"):
            read(text)
        assert read(text, language="sv").one().name == "a"

    def test_a_concept_that_lacks_the_label_without_a_language_is_named_in_another(self) -> None:
        found = read(HEAD + ':a a skos:Concept ; skos:prefLabel "a" . :b a skos:Concept ; skos:prefLabel "b"@sv .')
        assert found.tags["http://example.org/b"].name == "b"
        assert found.remarks == ["file: 'http://example.org/b': has no label without a language: the name is in sv"]

    def test_one_that_is_not_there_is_refused(self) -> None:
        with pytest.raises(UserError, match=r"file has no label in language 'sv'; its languages are 'en' \(3\)"):
            read(BEES, language="sv")


class TestSchemes:
    TEXT = HEAD + (
        ':a a skos:Concept ; skos:prefLabel "a" ; skos:inScheme :one .'
        ':b a skos:Concept ; skos:prefLabel "b" ; skos:topConceptOf :two .'
        ':two skos:hasTopConcept :c . :c a skos:Concept ; skos:prefLabel "c" .'
        ":old owl:deprecated true ; skos:inScheme :one ."
    )

    @pytest.mark.parametrize(("scheme", "ids"), [("one", ["a"]), ("two", ["b", "c"])])
    def test_only_the_concepts_of_the_scheme(self, scheme: str, ids: list[str]) -> None:
        found = read(self.TEXT, scheme=f"http://example.org/{scheme}")
        assert list(found.tags) == [f"http://example.org/{one}" for one in ids]
        assert len(found.deprecated) == (scheme == "one")

    def test_a_missing_scheme_is_refused_with_the_existing_ones(self) -> None:
        with pytest.raises(UserError) as raised:
            read(self.TEXT, scheme="http://example.org/three")
        assert str(raised.value) == (
            "file: scheme 'http://example.org/three' has no concepts; "
            "expected one of 'http://example.org/one', 'http://example.org/two'"
        )


class TestCollections:
    TEXT = HEAD + (
        "".join(f':{one} a skos:Concept ; skos:prefLabel "{one}" .' for one in "abcd")
        + ":all a skos:Collection ; skos:member :a , :some ."
        ":some a skos:OrderedCollection ; skos:memberList ( :b :c ) ."
    )

    @pytest.mark.parametrize(("collection", "ids"), [("all", "abc"), ("some", "bc")])
    def test_only_its_members_and_those_of_the_collections_in_it(self, collection: str, ids: str) -> None:
        found = read(self.TEXT, collection=f"http://example.org/{collection}")
        assert list(found.tags) == [f"http://example.org/{one}" for one in ids]

    def test_a_missing_collection_is_refused_with_the_existing_ones(self) -> None:
        with pytest.raises(UserError) as raised:
            read(self.TEXT, collection="http://example.org/none")
        assert "has no members; expected one of 'http://example.org/all'" in str(raised.value)

    def test_collections_in_each_other_end(self) -> None:
        text = self.TEXT + ":some skos:member :all ."
        assert len(read(text, collection="http://example.org/all").tags) == 3
