"""The encoded and kept parts of an event, kind by kind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagbus.stream.contract.codec import Record, Tombstone, encode_record
from tagbus.stream.contract.events import Exemplar, Knowledge, Tag
from tagbus.stream.encoder.release import default_folder, load_release
from tagbus.stream.memory.kinds import EXEMPLAR_CHARS, EXEMPLARS, HASH, KINDS, KNOWLEDGE, TAGS, Entry, excerpt

RELEASE = load_release(default_folder())


def entry(event: Tag | Exemplar | Knowledge) -> Entry:
    (kind,) = (one for one in KINDS.values() if one.model is type(event))
    found = kind.read(encode_record(event), RELEASE)
    assert isinstance(found, Entry)
    return found


def test_a_tag_keeps_what_prompts_say_of_it() -> None:
    tag = Tag(
        id="t1",
        name="bees",
        aliases=("honey bees",),
        description="Insects.",
        parents=("t0",),
        names={"fi": "mehiläiset"},
        scopes=("library",),
        replaced_by=("t2",),
    )
    found = entry(tag)
    assert (found.key, found.text) == ("t1", RELEASE.tag_text("bees", ("honey bees",), "Insects."))
    assert {name: value for name, value in found.payload.items() if name != HASH} == {
        "name": "bees",
        "names": {"fi": "mehiläiset"},
        "aliases": ["honey bees"],
        "description": "Insects.",
        "parents": ["t0"],
        "scopes": ["library"],
        "replaced_by": ["t2"],
    }


def test_an_exemplar_keeps_its_title_and_the_beginning_of_its_text() -> None:
    text = "honey " * 1_000
    found = entry(Exemplar(id="c1", title="Bees", text=text, accepted=("t1",), rejected=("t2",), scopes=("library",)))
    assert (found.key, found.text) == ("c1/people", f"Bees\n{text.strip()}")
    assert {name: value for name, value in found.payload.items() if name != HASH} == {
        "id": "c1",
        "source": "people",
        "title": "Bees",
        "text": ("honey " * (EXEMPLAR_CHARS // 6)).strip(),
        "accepted": ["t1"],
        "rejected": ["t2"],
        "scopes": ["library"],
    }


def test_a_segment_of_knowledge_keeps_from_when_to_when_it_holds() -> None:
    value = (
        b'{"id": "k1", "kind": "rule", "title": "Pets", "text": "No goats.", '
        b'"valid_until": "2027-01-01T00:00:00Z", "scopes": ["zoo"]}'
    )
    found = KNOWLEDGE.read(Record(b"k1", value), RELEASE)
    assert isinstance(found, Entry)
    assert (found.key, found.text) == ("k1", "Pets\nNo goats.")
    assert {name: value for name, value in found.payload.items() if name != HASH} == {
        "kind": "rule",
        "title": "Pets",
        "text": "No goats.",
        "valid_from": None,
        "valid_until": "2027-01-01T00:00:00Z",
        "scopes": ["zoo"],
    }


def test_the_hash_is_the_texts_alone() -> None:
    one, again = Exemplar(id="c1", title="Bees"), Exemplar(id="c2", text="Bees", accepted=("t1",), scopes=("library",))
    assert entry(one).payload[HASH] == entry(again).payload[HASH] != entry(Exemplar(id="c1", title="Wasps"))
    described = Tag(id="t1", name="bees", names={"fi": "mehiläiset"}, parents=("t0",))
    assert entry(described).payload[HASH] == entry(Tag(id="t1", name="bees")).payload[HASH]


def test_a_null_retires_a_point() -> None:
    assert TAGS.read(Record(b"t1", None), RELEASE) == Tombstone("t1")
    assert EXEMPLARS.read(Record(b"c1/people", None), RELEASE) == Tombstone("c1/people")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        ("  short  ", "short"),
        ("twelve chars", "twelve chars"),
        ("twelve chars and more", "twelve chars"),
        ("twelve charsand more", "twelve"),
        ("twelve   characters", "twelve"),
        ("unbroken-and-long", "unbroken-and"),
        ("日本語の文章は空白を含まない", "日本語の文章は空白を含ま"),
    ],
)
def test_an_excerpt_ends_with_a_word(text: str, kept: str) -> None:
    assert excerpt(text, 12) == kept


@given(st.text(), st.integers(1, 20))
def test_an_excerpt_is_the_beginning_of_its_text(text: str, limit: int) -> None:
    found = excerpt(text, limit)
    assert text.strip().startswith(found)
    assert len(found) <= limit
    assert found or not text.strip()
