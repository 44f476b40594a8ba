"""CloudEvents 1.0 over Kafka, made by the reference implementation and by hand."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from tagbus.stream.contract.codec import Keyed, Record, Tombstone, decode_content, decode_exemplar, decode_tag, encode
from tagbus.stream.contract.events import Content, Exemplar, Tag
from tagbus.stream.errors import InvalidEvent, Poison, Undecodable
from tests.contract.strategies import CONTENTS, EXEMPLARS, TAGS

ATTRIBUTES: dict[str, JsonValue] = {"specversion": "1.0", "id": "e-1", "source": "/cms", "type": "article.published"}
STRUCTURED = (("content-type", b"application/cloudevents+json"),)
BINARY = tuple((f"ce_{name}", str(text).encode()) for name, text in ATTRIBUTES.items())
BEES = Content(id="a", title="Bees")
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
Make = Callable[[CloudEvent], KafkaMessage]
EVENTS = CONTENTS | TAGS | EXEMPLARS


def record(message: KafkaMessage) -> Record:
    assert not isinstance(message.key, str)
    return Record(message.key, message.value, tuple(message.headers.items()))


def decode(event: Content | Tag | Exemplar, record: Record) -> Keyed | Tombstone:
    """As its topic does; the key is the event's, for the reference implementation writes none."""
    match event:
        case Content():
            return decode_content(Record(event.id.encode(), record.value, record.headers))
        case Tag():
            return decode_tag(Record(event.id.encode(), record.value, record.headers))
        case Exemplar():
            return decode_exemplar(Record(event.key.encode(), record.value, record.headers))


def structured(**more: JsonValue) -> Record:
    return Record(b"a", json.dumps(ATTRIBUTES | more).encode(), STRUCTURED)


def binary(*more: tuple[str, bytes | None], without: str = "") -> Record:
    return Record(b"a", encode(BEES), (*(pair for pair in BINARY if pair[0] != without), *more))


def cloud(data: dict[str, JsonValue] | bytes, **more: str) -> CloudEvent:
    # The reference implementation writes into the attributes that it is given, and always sets a time.
    return CloudEvent({**ATTRIBUTES, "time": NOON, **more}, data)


def timed(event: Content | Tag | Exemplar) -> Content | Tag | Exemplar:
    """The event as it is expected from an envelope of NOON."""
    if isinstance(event, Content) and event.time is None:
        return event.model_copy(update={"time": NOON})
    return event


# Made by the reference implementation


@given(EVENTS, st.sampled_from(["application/json", "application/json; charset=utf-8", "application/article+json"]))
def test_both_modes_of_the_reference_implementation_are_read(event: Content | Tag | Exemplar, data_type: str) -> None:
    made = cloud(json.loads(encode(event)), datacontenttype=data_type)

    assert decode(event, record(to_binary_event(made))) == timed(event)
    assert decode(event, record(to_structured_event(made))) == timed(event)


@given(EVENTS)
def test_data_as_bytes_travels_as_base64(event: Content | Tag | Exemplar) -> None:
    message = record(to_structured_event(cloud(encode(event))))

    assert message.value is not None
    assert b"data_base64" in message.value
    assert decode(event, message) == timed(event)


@pytest.mark.parametrize("make", [to_binary_event, to_structured_event])
def test_a_content_without_a_time_takes_the_events(make: Make) -> None:
    made = cloud(json.loads(encode(BEES)))

    assert decode_content(record(make(made))) == Content(id="a", title="Bees", time=NOON)


@pytest.mark.parametrize("make", [to_binary_event, to_structured_event])
def test_a_contents_own_time_counts_before_the_events(make: Make) -> None:
    content = Content(id="a", title="Bees", time=datetime(2020, 5, 1, tzinfo=UTC))

    assert decode_content(record(make(cloud(json.loads(encode(content)))))) == content


# Made by hand


def test_the_id_of_the_envelope_is_not_the_contents() -> None:
    assert decode_content(structured(data={"id": "a", "title": "Bees"})) == BEES
    assert decode_content(binary()) == BEES


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/cloudevents+json",
        b"Application/CloudEvents+JSON; charset=UTF-8",
        b" application/cloudevents+json ",
    ],
)
def test_the_content_type_makes_a_record_structured(content_type: bytes) -> None:
    made = structured(data={"id": "a", "title": "Bees"})

    assert decode_content(Record(made.key, made.value, (("Content-Type", content_type),))) == BEES
    assert decode_content(Record(made.key, made.value, (*BINARY, ("content-type", content_type)))) == BEES


def test_headers_of_others_leave_a_record_plain() -> None:
    headers = (("content-type", b"text/plain"), ("traceparent", b"\xff"), ("ce_", None), ("ce_colour", b"\xff"))

    assert decode_content(Record(b"a", encode(BEES), headers)) == BEES


@pytest.mark.parametrize("headers", [(), (("content-type", b"application/json"),), (("trace", b"1"),), BINARY])
@pytest.mark.parametrize("decode", [decode_content, decode_tag, decode_exemplar])
def test_a_whole_cloudevent_without_its_content_type_says_what_is_needed(
    decode: Callable[[Record], object], headers: tuple[tuple[str, bytes | None], ...]
) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode(Record(b"a", structured(data={"id": "a", "title": "x", "name": "x"}).value, headers))

    assert str(caught.value) == (
        "value: a CloudEvent is wrong, expected the header `content-type: application/cloudevents+json` beside it, "
        "or in a file its `data` alone"
    )


def test_a_record_without_a_value_is_a_tombstone_in_every_mode() -> None:
    for headers in (BINARY, STRUCTURED, (("ce_id", b"\xff"),)):
        assert decode_content(Record(b"a", None, headers)) == Tombstone("a")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (binary(without="ce_specversion"), "ce_specversion: (missing) is wrong, expected `1.0`"),
        (binary(("ce_specversion", b"0.3")), "ce_specversion: '0.3' is wrong, expected `1.0`"),
        (binary(without="ce_id"), "ce_id: (missing) is wrong, expected a string of at least 1 characters"),
        (binary(("ce_source", b"")), "ce_source: '' is wrong, expected a string of at least 1 characters"),
        (binary(without="ce_type"), "ce_type: (missing) is wrong, expected a string of at least 1 characters"),
        (binary(("ce_id", b"\xff")), "ce_id: b'\\xff' is wrong, expected UTF-8"),
        (binary(("ce_time", b"noon")), "ce_time: 'noon' is wrong, expected an RFC 3339 time"),
        (binary(("content-type", b"text/xml")), "content-type: b'text/xml' is wrong, expected a JSON media type"),
        (binary(("content-type", b"\xff")), "content-type: b'\\xff' is wrong, expected a JSON media type"),
        (structured(), "data: (missing) is wrong, expected an object; a tombstone is a record without a value"),
        (structured(data=None), "data: (missing) is wrong, expected an object"),
        (structured(data="{}"), "data: '{}' is wrong, expected an object"),
        (structured(data={"id": 5}), "data.id: 5 is wrong, expected a string of 1 to 256 characters"),
        (structured(data={"id": "a"}), "data.text: '' is wrong, expected a title or a text that is not empty"),
        (structured(data={"id": "a", "title": "x"}, specversion="0.3"), "specversion: '0.3' is wrong, expected `1.0`"),
        (structured(data={"id": "a", "title": "x"}, id=""), "id: '' is wrong, expected a string of at least 1"),
        (structured(data={"id": "a", "title": "x"}, time=5), "time: 5 is wrong, expected an RFC 3339 time"),
        (
            structured(data={"id": "a", "title": "x"}, datacontenttype="text/xml"),
            "datacontenttype: 'text/xml' is wrong, expected a JSON media type",
        ),
        (
            structured(data={"id": "a", "title": "x"}, data_base64="e30="),
            "data_base64: 'e30=' is wrong, expected either `data` or `data_base64`",
        ),
        (
            structured(data_base64=base64.b64encode(b'{"id":5}').decode()),
            "data_base64.id: 5 is wrong, expected a string of 1 to 256 characters",
        ),
        (structured(data={"id": "b", "title": "x"}), "key: 'a' is wrong, expected 'b', as the value says"),
    ],
)
def test_a_wrong_attribute_is_named(made: Record, message: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode_content(made)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            Record(b"a", b"[]", (("content-type", b"application/cloudevents-batch+json"),)),
            "expected one event a record (application/cloudevents+json): Kafka has no batch mode",
        ),
        (
            Record(b"a", b"x", (("content-type", b"application/cloudevents+avro"),)),
            "content-type: b'application/cloudevents+avro' is wrong, expected application/cloudevents+json",
        ),
        (Record(b"a", b"x", STRUCTURED), "value: b'x' is wrong, expected JSON in UTF-8"),
        (structured(data_base64="?"), "data_base64: '?' is wrong, expected base64"),
        (structured(data_base64="é"), "data_base64: 'é' is wrong, expected base64"),
        (structured(data_base64=""), "data_base64: empty is wrong, expected JSON"),
        (structured(data_base64="eA=="), "data_base64: b'x' is wrong, expected JSON in UTF-8"),
        (Record(b"a", b"\xff", BINARY), "value: b'\\xff' is wrong, expected JSON in UTF-8"),
    ],
)
def test_what_is_no_cloudevent_is_undecodable(made: Record, message: str) -> None:
    with pytest.raises(Undecodable) as caught:
        decode_content(made)

    assert message in str(caught.value)


def test_all_wrong_attributes_and_fields_are_named_at_once() -> None:
    with pytest.raises(Poison) as caught:
        decode_content(structured(id=1, type="", data={"id": 5, "title": "x"}))

    assert [wrong.field for wrong in caught.value.errors] == ["id", "type", "data.id"]
