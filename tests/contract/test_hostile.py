"""Any bytes decode to an event or to a Poison that names field, value and expected value."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue, ValidationError

from tagbus.stream.contract.codec import (
    VALUE_BYTES,
    Keyed,
    Record,
    Tombstone,
    decode_content,
    decode_exemplar,
    decode_tag,
    decode_tagged,
    encode_record,
    parse,
)
from tagbus.stream.contract.events import Content, Exemplar, Knowledge, Tag, TaggedContent
from tagbus.stream.contract.fields import METADATA_BYTES, Event
from tagbus.stream.errors import InvalidEvent, Poison, Undecodable
from tests.contract.strategies import CONTENTS, EVENTS

MODELS = (Content, Tag, Exemplar, TaggedContent)
DECODERS = (decode_content, decode_tag, decode_exemplar, decode_tagged)
TIME = "an RFC 3339 time with its offset, for instance 2026-01-31T09:30:00Z"
NAMES = "a list of at most 1000 items, each a string of 1 to 512 characters"


def text(**fields: JsonValue) -> bytes:
    return json.dumps({"id": "a", "title": "Bees", "name": "bees"} | fields).encode()


def raw(more: str) -> bytes:
    return b'{"id":"a","title":"Bees",' + more.encode() + b"}"


# What is no JSON


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"", "value: empty is wrong, expected JSON; a tombstone is a record without a value"),
        (b" \n", "value: empty is wrong, expected JSON; a tombstone is a record without a value"),
        (b"bees", "value: b'bees' is wrong, expected JSON in UTF-8 (expected value at line 1 column 1)"),
        (b"{", "value: b'{' is wrong, expected JSON in UTF-8 (EOF while parsing an object at line 1 column 1)"),
        (text() + b"x", "is wrong, expected JSON in UTF-8 (trailing characters at line 1 column 45)"),
        (b"\x00\x00\x00\x00\x07", "value: b'\\x00\\x00\\x00\\x00\\x07' is wrong, expected a byte 0, four bytes of"),
        (b'\xef\xbb\xbf{"id":"a"}', "is wrong, expected JSON without a byte order mark at its start (RFC 8259"),
        (
            '{"id":"ä"}'.encode("latin-1"),
            'value: b\'{"id":"\\xe4"}\' is wrong, expected JSON in UTF-8 (invalid unicode',
        ),
        ('{"id":"a"}'.encode("utf-16"), "is wrong, expected JSON in UTF-8"),
        (b'{"id":"\xed\xa0\x80"}', "is wrong, expected JSON in UTF-8 (invalid unicode code point at line 1 column 8)"),
        (b'{"id":"\\ud800"}', "expected JSON whose \\u escapes name a character, surrogates in pairs"),
        (raw('"metadata":{"q":"\\ud800x"}'), "expected JSON whose \\u escapes name a character, surrogates in pairs"),
        (b'{"id":"a\x00"}', "is wrong, expected JSON in UTF-8 (control character"),
        (b"[" * 10_000 + b"]" * 10_000, "expected JSON nested less than 200 deep (recursion limit exceeded"),
        (b"[" * VALUE_BYTES, "expected JSON nested less than 200 deep (recursion limit exceeded"),
        (b'{"id":' * 10_000 + b"1" + b"}" * 10_000, "expected JSON nested less than 200 deep"),
        (raw('"metadata":{"q":' + "[" * 10_000 + "]" * 10_000 + "}"), "expected JSON nested less than 200 deep"),
        (raw('"x":' + "9" * 100_000), "expected JSON with numbers of at most 4300 digits (number out of range"),
        (raw('"x":' + "9" * (VALUE_BYTES - 100)), "expected JSON with numbers of at most 4300 digits"),
        (b'{"id":"a",\n "title":"x",\n "text": bees}', "(expected value at line 3 column 10)"),
    ],
)
def test_what_is_no_json_is_shown_where_it_breaks_off(value: bytes, message: str) -> None:
    for decode in DECODERS:
        with pytest.raises(Undecodable) as caught:
            decode(Record(b"a/people", value))

        assert message in str(caught.value)
        assert caught.value.errors[0].field == "value"


# What is JSON and no event


INVISIBLE = ["\u200b\u200b", "\u00ad", "\ufeff", "\x01\x02", "\u202e", " ", "\u3000\n"]


@pytest.mark.parametrize("blank", INVISIBLE)
@pytest.mark.parametrize(
    ("model", "fields", "field"),
    [
        (Content, {"title": "BLANK"}, "title"),
        (Content, {"title": "", "text": "BLANK"}, "text"),
        (Exemplar, {"title": "BLANK", "accepted": ["a"]}, "title"),
        (Exemplar, {"title": "", "text": "BLANK"}, "text"),
        (Knowledge, {"kind": "rule", "text": "BLANK"}, "text"),
        (Tag, {"name": "BLANK"}, "name"),
        (Tag, {"aliases": ["bee", "BLANK"]}, "aliases.1"),
        (Tag, {"names": {"fi": "BLANK"}}, "names.fi"),
    ],
)
def test_text_of_invisible_characters_alone_is_no_text(
    model: type[Event], fields: dict[str, JsonValue], field: str, blank: str
) -> None:
    with pytest.raises(InvalidEvent) as caught:
        parse(text(**json.loads(json.dumps(fields).replace("BLANK", json.dumps(blank)[1:-1]))), model)

    (wrong,) = caught.value.errors
    assert (wrong.field, wrong.value) == (field, repr(blank))
    assert "not empty" in wrong.expected


def test_an_exemplar_without_any_text_is_a_decision_about_its_content() -> None:
    assert parse(b'{"id":"a","accepted":["t"]}', Exemplar).accepted == ("t",)


@pytest.mark.parametrize(
    ("model", "value", "message"),
    [
        (Content, b"null", "value: null is wrong, expected an object"),
        (Content, b"[]", "value: a list of length 0 is wrong, expected an object"),
        (Content, b'"{}"', "value: a string that holds JSON is wrong, expected the JSON itself"),
        (Content, b"{}", "id: (missing) is wrong, expected a string of 1 to 256 characters"),
        (Content, text(id=5), "id: 5 is wrong, expected a string of 1 to 256 characters"),
        (Content, text(id=None), "id: null is wrong, expected a string of 1 to 256 characters"),
        (Content, text(id=True), "id: true is wrong, expected a string of 1 to 256 characters"),
        (Content, text(id=""), "id: '' is wrong, expected a string of 1 to 256 characters"),
        (Content, text(id="x" * 257), "id: 'xxxxx"),
        (Content, b'{"id":1e400,"title":"x"}', "id: inf is wrong, expected a string of 1 to 256 characters"),
        (Content, b'{"id":NaN,"title":"x"}', "id: nan is wrong, expected a string of 1 to 256 characters"),
        (Content, b'{"id":-' + b"9" * 4300 + b',"title":"x"}', "… is wrong, expected a string of 1 to 256 characters"),
        (Content, text(title="x" * 4097), "… is wrong, expected a string of at most 4096 characters"),
        (Content, text(title=None), "title: null is wrong, expected a string of at most 4096 characters"),
        (Content, text(title={"en": "x"}), "title: an object of size 1 is wrong, expected a string of at most 4096"),
        (Content, text(text="x" * 500_001), "… is wrong, expected a string of at most 500000 characters"),
        (Content, text(text="x" * 1_000_000), "… is wrong, expected a string of at most 500000 characters"),
        (Content, text(text=["a"]), "text: a list of length 1 is wrong, expected a string of at most 500000"),
        (Content, text(title=""), "text: '' is wrong, expected a title or a text that is not empty"),
        (Content, text(title=" \t", text="\n"), "text: '\\n' is wrong, expected a title or a text that is not empty"),
        (Content, text(language="x" * 36), "language: 'xxx"),
        (Content, text(language=3), "language: 3 is wrong, expected a string of at most 35 characters"),
        (Content, text(time=1700000000), f"time: 1700000000 is wrong, expected {TIME}"),
        (Content, text(time="1700000000"), f"time: '1700000000' is wrong, expected {TIME}"),
        (Content, text(time="2026-01-31"), f"time: '2026-01-31' is wrong, expected {TIME}"),
        (Content, text(time="2026-01-31T09:30:00"), f"time: '2026-01-31T09:30:00' is wrong, expected {TIME}"),
        (Content, text(time="2026-01-31 09:30:00Z"), f"time: '2026-01-31 09:30:00Z' is wrong, expected {TIME}"),
        (Content, text(time="2026-02-30T09:30:00Z"), f"{TIME} (day value is outside expected range)"),
        (Content, text(time="2026-01-31T24:00:00Z"), f"{TIME} (hours end at 23)"),
        (Content, text(time="2026-01-31T23:60:00Z"), f"{TIME} (minutes end at 59)"),
        (Content, text(time="2016-12-31T23:59:60Z"), f"{TIME} (leap seconds cannot be read: seconds end at 59)"),
        (Content, text(time="2016-12-31T23:59:61Z"), f"{TIME} (seconds end at 59)"),
        (Content, text(time="2026-01-31T23:00:00+24:00"), f"{TIME} (an offset is at most 23:59)"),
        (Content, text(version=2**63), f"version: {2**63} is wrong, expected a whole number of 0 to {2**63 - 1}"),
        (Content, text(version=-1), f"version: -1 is wrong, expected a whole number of 0 to {2**63 - 1}"),
        (Content, text(time="0000-01-01T00:00:00Z"), f"{TIME} (year 0 is out of range)"),
        (Content, text(metadata=[1]), "metadata: a list of length 1 is wrong, expected an object"),
        (Content, text(metadata=None), "metadata: null is wrong, expected an object"),
        (Content, text(metadata={"k": "x" * METADATA_BYTES}), "expected an object of at most 16384 bytes of JSON"),
        (Content, raw('"metadata":{"q":[1e400]}'), "metadata: an object of size 1 is wrong, expected finite numbers"),
        (Content, raw('"metadata":{"q":NaN}'), "metadata: an object of size 1 is wrong, expected finite numbers"),
        (Tag, b'{"id":"a"}', "name: (missing) is wrong, expected a string of 1 to 512 characters"),
        (Tag, text(name=""), "name: '' is wrong, expected a string of 1 to 512 characters"),
        (Tag, text(aliases="x"), f"aliases: 'x' is wrong, expected {NAMES}"),
        (Tag, text(aliases=["a", 3]), "aliases.1: 3 is wrong, expected a string of 1 to 512 characters"),
        (Tag, text(aliases=["x"] * 1001), f"aliases: a list of length 1001 is wrong, expected {NAMES}"),
        (Tag, text(parents=[""]), "parents.0: '' is wrong, expected a string of 1 to 256 characters"),
        (Tag, text(parents=[{}]), "parents.0: an object of size 0 is wrong, expected a string of 1 to 256 characters"),
        (Exemplar, text(source="robot"), "source: 'robot' is wrong, expected `people` or `machine`"),
        (Exemplar, text(source=None), "source: null is wrong, expected `people` or `machine`"),
        (Exemplar, text(accepted={"p1": True}), "accepted: an object of size 1 is wrong, expected a list"),
        (Exemplar, text(rejected=[7]), "rejected.0: 7 is wrong, expected a string of 1 to 256 characters"),
        (TaggedContent, text(tags=[], path=[]), "versions: (missing) is wrong, expected an object"),
        (
            TaggedContent,
            text(tags=[{}], path=[]),
            "tags.0.stage: (missing) is wrong, expected a string",
        ),
        (TaggedContent, text(degraded=1), "degraded: 1 is wrong, expected a list"),
        (TaggedContent, text(degraded=[{"stage": "rank"}]), "degraded.0.reason: (missing) is wrong, expected a string"),
        (TaggedContent, text(usage={"calls": -1}), "usage.calls: -1 is wrong, expected a whole number of at least 0"),
        (Content, text(scopes="news"), "scopes: 'news' is wrong, expected a list of at most 64 items, each a"),
        (Content, text(scopes=[""]), "scopes.0: '' is wrong, expected a string of 1 to 256 characters"),
        (Content, text(scopes=["x"] * 65), "scopes: a list of length 65 is wrong, expected a list of at most 64 items"),
        (Tag, text(names={"fi": ""}), "names.fi: '' is wrong, expected a string of 1 to 512 characters"),
        (Tag, text(names=["x"]), "names: a list of length 1 is wrong, expected an object"),
        (Knowledge, text(kind="rule"), "text: (missing) is wrong, expected a string of 1 to 500000 characters"),
        (Knowledge, text(text="x"), "kind: (missing) is wrong, expected a string of 1 to 64 characters"),
        (Knowledge, text(kind="k" * 65, text="x"), "is wrong, expected a string of 1 to 64 characters"),
        (
            Knowledge,
            text(kind="news", text="x", valid_from="2026-02-01T00:00:00Z", valid_until="2026-01-01T00:00:00Z"),
            "valid_until: '2026-01-01T00:00:00Z' is wrong, expected a time after `valid_from`",
        ),
        (TaggedContent, text(versions={"taxonomy": {"a b": "x"}}), "versions.taxonomy.'a b': 'x' is wrong"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_its_value_and_what_would_be_right(
    model: type[Content] | type[Tag] | type[Exemplar] | type[Knowledge] | type[TaggedContent],
    value: bytes,
    message: str,
) -> None:
    with pytest.raises(InvalidEvent) as caught:
        parse(value, model)

    assert message in str(caught.value)
    assert caught.value.stage == "decode"


def test_every_wrong_field_is_named() -> None:
    with pytest.raises(InvalidEvent) as caught:
        parse(text(id=1, title=2, language=3), Content)

    assert [wrong.field for wrong in caught.value.errors] == ["id", "title", "language"]


def test_five_wrong_fields_are_named_and_all_are_counted() -> None:
    with pytest.raises(InvalidEvent) as caught:
        parse(text(id=1, title=2, text=3, language=4, time=5, metadata=6), Content)

    fields = [wrong.field for wrong in caught.value.errors]
    assert fields == ["id", "title", "text", "language", "time", "value"]
    assert "an event with 6 wrong fields, 5 of them named here" in str(caught.value)


# What is unusual and right


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (b'{"id":"a\\u0000","title":"x\\u0000y"}', Content(id="a\0", title="x\0y")),
        (b'{"id":"a","title":"\\ud83d\\udc1d"}', Content(id="a", title="🐝")),
        (b' \r\n{"id":"a","title":"x"}\n', Content(id="a", title="x")),
        (b'{"id":"a","title":"\xef\xbb\xbfx"}', Content(id="a", title="\ufeffx")),
        (b'{"id":"a","title":"x","unknown":NaN}', Content(id="a", title="x")),
        (b'{"id":"a","title":"x","unknown":1e400}', Content(id="a", title="x")),
        (b'{"id":"a","title":"x","metadata":{"q":1e300}}', Content(id="a", title="x", metadata={"q": 1e300})),
        (b'{"id":"a","title":"x","title":"y"}', Content(id="a", title="y")),
        (text(text="x" * 500_000), Content(id="a", title="Bees", text="x" * 500_000)),
    ],
    ids=["NUL", "surrogates", "white space", "BOM inside", "NaN ignored", "inf ignored", "1e300", "twice", "long"],
)
def test_what_is_unusual_and_valid_passes(value: bytes, content: Content) -> None:
    assert decode_content(Record(None, value)) == content


@pytest.mark.parametrize(
    "value",
    [
        text(parents=[1] * 900_000),
        text(parents=[""] * 900_000),
        text(aliases=[{}] * 900_000),
        text(aliases=["x"] * 700_000),
        b'{"id":"a","title":"x","metadata":{"q":[' + b",".join([b"9" * 4000] * 900) + b"]}}",
        b'{"tags":[' + b",".join([b"{}"] * 900_000) + b"]}",
        b"{" + b",".join(b'"k%d":1' % number for number in range(300_000)) + b"}",
    ],
    ids=["numbers", "empty texts", "objects", "too many", "long numbers", "empty tags", "fields"],
)
def test_a_value_with_a_million_errors_is_refused_at_the_first_few(value: bytes) -> None:
    """Without FailFast the first three made 900,000 errors each, and took 3 to 6 seconds."""
    assert len(value) <= VALUE_BYTES
    for model in MODELS:
        try:
            model.model_validate_json(value)
        except ValidationError as error:
            assert error.error_count() < 16  # noqa: PT017 - models that do not know the field pass


# Whatever comes

JUNK = st.binary(max_size=60) | st.sampled_from([b"", b"null", b"{}", b"[[", b'{"id":"a"}', text()])
HEADER_NAMES = st.sampled_from(
    ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type", "Content-Type", "x", "", "é"]
)
HEADER_VALUES = st.none() | st.binary(max_size=20) | st.sampled_from(
    [b"1.0", b"application/json", b"application/cloudevents+json", b"application/cloudevents-batch+json"]
)  # fmt: skip
HEADERS = st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=6).map(tuple)
RECORDS = st.builds(Record, st.none() | JUNK, st.none() | JUNK, HEADERS)


def outcome(decode: Callable[[Record], Keyed | Tombstone], record: Record) -> Keyed | Tombstone | Poison:
    try:
        return decode(record)
    except Poison as error:
        poison = error
    assert poison.errors
    assert len(str(poison).encode()) < 4_096, "it must fit into a header"
    return poison


@given(RECORDS)
def test_any_record_gives_an_event_a_tombstone_or_a_poison(record: Record) -> None:
    for decode in DECODERS:
        outcome(decode, record)


@given(EVENTS, st.data())
def test_an_event_that_was_damaged_gives_an_event_or_a_poison(event: Keyed, data: st.DataObject) -> None:
    record = encode_record(event)
    value = bytearray(record.value or b"")
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))

    for decode in DECODERS:
        outcome(decode, Record(record.key, bytes(value)))


WRONG: st.SearchStrategy[JsonValue] = st.sampled_from(
    [None, 0, -1.5, True, "", "x" * 600, [], [None], [[]], {}, {"": 1}]
)


@given(CONTENTS, st.data())
def test_an_event_with_a_field_of_another_type_gives_an_event_or_a_poison(
    content: Content, data: st.DataObject
) -> None:
    fields = content.model_dump(mode="json")
    names = data.draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, unique=True))
    for name in names:
        fields[name] = data.draw(WRONG)

    result = outcome(decode_content, Record(None, json.dumps(fields).encode()))
    if isinstance(result, Poison):
        assert {wrong.field.split(".")[0] for wrong in result.errors} <= {*names, "text", "value"}
