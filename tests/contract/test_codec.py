"""Records to events and back: keys, tombstones, sizes, and the headers that tagbus writes."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from pydantic import JsonValue

from tagbus.stream.contract.codec import (
    DEAD_LETTER_HEADERS,
    VALUE_BYTES,
    Keyed,
    Origin,
    Record,
    Tombstone,
    dead_letter_headers,
    decode_content,
    decode_decision,
    decode_exemplar,
    decode_knowledge,
    decode_tag,
    decode_tagged,
    encode,
    encode_record,
    event_key,
    parse,
    read_dead_letter,
    read_source,
    source_headers,
    split_exemplar_key,
)
from tagbus.stream.contract.decision import Decision
from tagbus.stream.contract.events import Content, DeadLetter, Exemplar, Knowledge, Tag, TaggedContent
from tagbus.stream.contract.fields import ID_CHARS, TEXT_CHARS
from tagbus.stream.contract.schema import EXAMPLES
from tagbus.stream.errors import InvalidEvent, Poison, Undecodable
from tests.contract.strategies import EVENTS, LETTERS

Decode = Callable[[Record], Keyed | Tombstone]
DECODE: dict[type, Decode] = {
    Content: decode_content,
    Tag: decode_tag,
    Exemplar: decode_exemplar,
    Knowledge: decode_knowledge,
    TaggedContent: decode_tagged,
    Decision: decode_decision,
}


def value(**fields: JsonValue) -> bytes:
    return json.dumps(fields).encode()


CONTENT = value(id="a", title="Bees")
TAG = value(id="a", name="bees")
EXEMPLAR = value(id="a", title="Bees", source="machine")


@given(EVENTS)
def test_what_is_encoded_is_decoded_to_the_same_event(event: Keyed) -> None:
    assert DECODE[type(event)](encode_record(event)) == event


@pytest.mark.parametrize("word", EXAMPLES)
def test_the_examples_of_the_documents_round_trip(word: str) -> None:
    event = EXAMPLES[word]
    assert isinstance(event, Keyed)

    assert DECODE[type(event)](encode_record(event)) == event


def test_json_is_written_compact_and_in_utf8() -> None:
    assert encode(Content(id="a", title="Bienen über Köln", metadata={"pages": [1, 2.5]})).decode() == (
        '{"id":"a","title":"Bienen über Köln","text":"","language":null,"time":null,'
        '"version":null,"metadata":{"pages":[1,2.5]},"scopes":[]}'
    )


def test_fields_that_the_contract_does_not_know_pass() -> None:
    assert decode_content(Record(None, value(id="a", title="Bees", colour={"x": [1]}))) == Content(id="a", title="Bees")


def test_of_a_field_that_stands_twice_the_last_counts() -> None:
    assert decode_content(Record(b"b", b'{"id":"a","title":"Bees","id":"b"}')) == Content(id="b", title="Bees")


def test_a_text_at_its_limit_passes_in_every_escape() -> None:
    for character in ("x", "é", "蜂", "🐝"):
        content = Content(id="a", text=character * TEXT_CHARS)
        plain = encode(content)

        assert decode_content(Record(b"a", plain)) == content
        escaped = json.dumps(json.loads(plain), ensure_ascii=True).encode()
        if len(escaped) <= VALUE_BYTES:
            assert decode_content(Record(b"a", escaped)) == content
        else:
            assert character == "🐝", "only characters beyond the BMP, all of them escaped, may exceed the bound"


def test_a_value_above_the_bound_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode_content(Record(b"a", b"\xff" * (VALUE_BYTES + 1)))

    assert str(caught.value) == "value: a value of 4000001 bytes is wrong, expected at most 4000000 bytes"


# Keys


@pytest.mark.parametrize(
    ("decode", "record", "key"),
    [
        (decode_content, Record(b"a", None), "a"),
        (decode_content, Record("ä/ö".encode(), None), "ä/ö"),
        (decode_tag, Record(b"t" * ID_CHARS, None), "t" * ID_CHARS),
        (decode_knowledge, Record(b"k" * ID_CHARS, None), "k" * ID_CHARS),
        (decode_exemplar, Record(b"a/people", None), "a/people"),
        (decode_exemplar, Record(b"a/b/machine", None), "a/b/machine"),
        (decode_exemplar, Record(b"e" * ID_CHARS + b"/machine", None), "e" * ID_CHARS + "/machine"),
        (decode_tagged, Record(b"a", None, (("content-type", b"application/cloudevents+json"),)), "a"),
    ],
)
def test_a_record_without_a_value_is_a_tombstone(decode: Decode, record: Record, key: str) -> None:
    assert decode(record) == Tombstone(key)


def test_content_needs_no_key() -> None:
    assert decode_content(Record(None, CONTENT)) == Content(id="a", title="Bees")


@pytest.mark.parametrize(
    ("decode", "record", "message"),
    [
        (decode_content, Record(None, None), "key: (missing) is wrong, expected the key that the tombstone is for"),
        (decode_tag, Record(None, None), "key: (missing) is wrong, expected the key that the tombstone is for"),
        (
            decode_tag,
            Record(None, TAG),
            "key: (missing) is wrong, expected the id of the event: the topic is compacted",
        ),
        (decode_exemplar, Record(None, EXEMPLAR), "key: (missing) is wrong, expected the id of the event"),
        (decode_content, Record(b"b", CONTENT), "key: 'b' is wrong, expected 'a', as the value says"),
        (decode_content, Record(b'"a"', CONTENT), "key: '\"a\"' is wrong, expected 'a', as the value says"),
        (decode_tag, Record(b"b", TAG), "key: 'b' is wrong, expected 'a', as the value says"),
        (decode_exemplar, Record(b"a", EXEMPLAR), "key: 'a' is wrong, expected 'a/machine', as the value says"),
        (decode_exemplar, Record(b"a/people", EXEMPLAR), "key: 'a/people' is wrong, expected 'a/machine'"),
        (decode_exemplar, Record(b"a", None), "key: 'a' is wrong, expected `id/people` or `id/machine`"),
        (decode_exemplar, Record(b"/people", None), "key: '/people' is wrong, expected `id/people` or `id/machine`"),
        (decode_exemplar, Record(b"a/robot", None), "key: 'a/robot' is wrong, expected `id/people` or `id/machine`"),
        (decode_content, Record(b"", CONTENT), "key: '' is wrong, expected a string of 1 to 256 characters"),
        (decode_content, Record(b"", None), "key: '' is wrong, expected a string of 1 to 256 characters"),
        (decode_content, Record(b"x" * 257, None), "… is wrong, expected a string of 1 to 256 characters"),
        (decode_exemplar, Record(b"x" * 265, None), "… is wrong, expected a string of 1 to 264 characters"),
        (decode_content, Record(b"\xff", CONTENT), "key: b'\\xff' is wrong, expected UTF-8"),
        (decode_tag, Record(b"\xed\xa0\x80", None), "key: b'\\xed\\xa0\\x80' is wrong, expected UTF-8"),
    ],
)
def test_a_wrong_key_is_named(decode: Decode, record: Record, message: str) -> None:
    with pytest.raises(Poison) as caught:
        decode(record)

    assert message in str(caught.value)
    assert caught.value.stage == "decode"
    assert [wrong.field for wrong in caught.value.errors] == ["key"]


def test_the_key_of_an_exemplar_is_taken_apart_again() -> None:
    event = Exemplar(id="a/people", source="machine", title="Bees")

    assert event_key(event) == "a/people/machine"
    assert split_exemplar_key(event_key(event)) == ("a/people", "machine")


def test_a_line_of_a_file_needs_no_record() -> None:
    assert parse(TAG, Tag) == Tag(id="a", name="bees")
    with pytest.raises(Undecodable):
        parse(b"bees", Tag)


# Headers


def test_a_result_names_the_record_that_it_comes_from() -> None:
    headers = source_headers("content", 3, 2**40)

    assert headers == [
        ("tagbus.source.topic", b"content"),
        ("tagbus.source.partition", b"3"),
        ("tagbus.source.offset", b"1099511627776"),
    ]
    assert read_source(headers) == Origin("content", 3, 2**40)


LETTER = DeadLetter(
    topic="content", partition=3, offset=17, exception="InvalidEvent", message="id: 5 is wrong", stage="decode"
)


def test_a_dead_letter_has_the_headers_of_kafka_streams_as_text() -> None:
    cut = LETTER.model_copy(update={"value_bytes": 5_000_000, "value_sha256": "ab" * 32, "attempts": 3})

    assert dead_letter_headers(LETTER) == [
        ("__streams.errors.exception", b"InvalidEvent"),
        ("__streams.errors.message", b"id: 5 is wrong"),
        ("__streams.errors.topic", b"content"),
        ("__streams.errors.partition", b"3"),
        ("__streams.errors.offset", b"17"),
        ("tagbus.stage", b"decode"),
        ("tagbus.attempts", b"1"),
        ("tagbus.replays", b"0"),
    ]
    assert dead_letter_headers(cut)[-4:] == [
        ("tagbus.attempts", b"3"),
        ("tagbus.replays", b"0"),
        ("tagbus.value.bytes", b"5000000"),
        ("tagbus.value.sha256", b"ab" * 32),
    ]


@given(LETTERS)
def test_a_dead_letter_is_read_back_from_its_headers(letter: DeadLetter) -> None:
    headers = [("trace", b"x"), ("empty", None), *dead_letter_headers(letter)]

    assert read_dead_letter(headers) == letter
    assert read_source(headers) == Origin(letter.topic, letter.partition, letter.offset)


def test_every_field_of_a_dead_letter_has_a_header() -> None:
    assert set(DEAD_LETTER_HEADERS) == set(DeadLetter.model_fields)


def test_of_a_replayed_dead_letter_the_last_headers_count() -> None:
    again = LETTER.model_copy(update={"offset": 99, "attempts": 2})
    headers = [*source_headers("old", 0, 0), *dead_letter_headers(LETTER), *dead_letter_headers(again)]

    assert read_dead_letter(headers) == again
    assert read_source(headers) == Origin("content", 3, 99)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("__streams.errors.topic", None, "__streams.errors.topic: (missing) is wrong, expected a string of at least 1"),
        ("__streams.errors.partition", b"x", "__streams.errors.partition: 'x' is wrong, expected a whole number of at"),
        ("__streams.errors.offset", b"-1", "__streams.errors.offset: '-1' is wrong, expected a whole number of at"),
        ("__streams.errors.offset", b"9" * 9999, "… is wrong, expected a whole number of at least 0"),
        (
            "__streams.errors.message",
            None,
            "__streams.errors.message: (missing) is wrong, expected a string of at most",
        ),
        ("tagbus.attempts", b"\xff", "is wrong, expected a whole number of at least 1"),
    ],
)
def test_a_wrong_header_of_a_dead_letter_is_named(name: str, text: bytes | None, message: str) -> None:
    headers = [(field, raw) for field, raw in dead_letter_headers(LETTER) if field != name]

    with pytest.raises(InvalidEvent) as caught:
        read_dead_letter([*headers, (name, text)])

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ([], "tagbus.source.topic: (missing) is wrong, expected the topic that the record comes from"),
        ([("tagbus.source.topic", b"t")], "tagbus.source.partition: (missing) is wrong, expected a whole number"),
        (source_headers("t", -1, 0), "tagbus.source.partition: '-1' is wrong, expected a whole number"),
        ([*source_headers("t", 1, 0)[:2], ("tagbus.source.offset", b"9" * 10**6)], "tagbus.source.offset: '9999"),
        ([*source_headers("t", 1, 0)[:2], ("tagbus.source.offset", "٣".encode())], "tagbus.source.offset: '٣'"),
    ],
)
def test_a_record_that_does_not_say_where_it_comes_from_is_refused(
    headers: list[tuple[str, bytes]], message: str
) -> None:
    with pytest.raises(InvalidEvent) as caught:
        read_source(headers)

    assert message in str(caught.value)
