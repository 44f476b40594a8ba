"""An export is imported as the same tags, in every form that has all fields."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.stream.contract.events import Tag
from tagbus.stream.contract.fields import blank
from tagbus.stream.errors import UserError
from tagbus.stream.vocabulary.forms import Form
from tests.contract.strategies import IDS
from tests.vocabulary.reading import read, written

RDF: tuple[Form, ...] = ("turtle", "ntriples", "jsonld", "rdfxml")
TABLES: tuple[Form, ...] = ("csv", "tsv", "jsonl")
IRIS = st.text(string.ascii_letters, min_size=1, max_size=8).map("http://example.org/{}".format)
# XML 1.0 cannot express most control characters, nor a table's cell a NUL.
PLAIN = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")
TEXT = st.text(PLAIN | st.sampled_from("\n\t|\\\"'<&;,"), min_size=1, max_size=30).filter(lambda text: not blank(text))
LANGUAGES = st.sampled_from(["fi", "sv", "de-at", "zh-hant"])


@st.composite
def taxonomies(draw: st.DrawFn) -> list[Tag]:
    """Some tags whose parents are among them."""
    ids = draw(st.lists(IRIS | IDS, unique=True, max_size=4))
    found = []
    for one in ids:
        name = draw(TEXT)
        aliases = draw(st.lists(TEXT.filter(lambda text: text != name), unique=True, max_size=3))  # noqa: B023
        found.append(
            Tag(
                id=one,
                name=name,
                description=draw(st.just("") | TEXT),
                aliases=tuple(aliases),
                parents=tuple(draw(st.lists(st.sampled_from(ids), unique=True, max_size=3))),
                names=draw(st.dictionaries(LANGUAGES, TEXT, max_size=2)),
                scopes=tuple(draw(st.lists(IDS.filter(lambda text: text.isprintable()), unique=True, max_size=2))),
            )
        )
    # The others are in force: a successor must be, or have one, to be read.
    if len(found) > 1 and draw(st.booleans()):
        gone = found[0].id
        found = [one.model_copy(update={"parents": tuple(up for up in one.parents if up != gone)}) for one in found]
        found[0] = found[0].model_copy(update={"replaced_by": (ids[1],)})
    return found


def unordered(tags: list[Tag]) -> dict[str, tuple[object, ...]]:
    """Tags without the order of their lists, as RDF has none."""
    return {
        tag.id: (
            tag.name,
            tag.description,
            set(tag.aliases),
            set(tag.parents),
            tag.names,
            set(tag.scopes),
            tag.replaced_by,
        )
        for tag in tags
    }


@pytest.mark.parametrize("form", RDF)
@settings(max_examples=25)
@given(tags=taxonomies())
def test_skos(form: Form, tags: list[Tag]) -> None:
    found = read(written(tags, form), form)
    assert (found.wrong, found.remarks) == ([], [])
    assert unordered(list(found.tags.values())) == unordered(tags)


@pytest.mark.parametrize("form", TABLES)
@settings(max_examples=25)
@given(tags=taxonomies())
def test_tables_and_json_lines(form: Form, tags: list[Tag]) -> None:
    found = read(written(tags, form), form)
    assert (found.wrong, found.remarks) == ([], [])
    assert list(found.tags.values()) == tags


@pytest.mark.parametrize("form", RDF)
def test_names_may_be_marked_with_their_language(form: Form) -> None:
    tag = Tag(id="http://example.org/a", name="bees", aliases=("honeybees",), names={"fi": "mehiläiset"})
    assert read(written([tag], form, "en"), form, language="en").one() == tag


@pytest.mark.parametrize("form", RDF)
def test_a_second_name_in_the_language_of_the_names_becomes_an_alias(form: Form) -> None:
    # "no language" has no form in RDF.
    tag = Tag(id="t", name="bees", aliases=("honeybees",), names={"EN": "honey bees", "no language": "Apis"})
    found = read(written([tag], form, "en"), form, language="en").one()
    assert (found.name, set(found.aliases), found.names) == ("bees", {"honeybees", "honey bees", "Apis"}, {})


@pytest.mark.parametrize("form", RDF)
def test_one_that_is_the_name_is_no_alias(form: Form) -> None:
    tag = Tag(id="t", name="bees", names={"en": "bees"})
    assert read(written([tag], form, "en"), form, language="en").one() == Tag(id="t", name="bees")


@pytest.mark.parametrize("letter", ["\v", "\x1b", "\uffff"])
def test_a_character_that_xml_cannot_hold_is_refused_there_only(letter: str) -> None:
    tags = [Tag(id="t 1", name="a", description=f"b{letter}")]
    with pytest.raises(UserError) as raised:
        written(tags, "rdfxml")
    assert str(raised.value) == (
        f"tag 't 1': definition has the character U+{ord(letter):04X}, which RDF/XML cannot hold; "
        "expected another format, for instance --to turtle"
    )
    assert list(read(written(tags, "turtle"), "turtle").tags.values()) == tags
