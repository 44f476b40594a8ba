"""Wrapped events: the error names the wrapper."""

import json

import pytest

from tagbus.stream.contract.codec import Record, decode_content, decode_tag
from tagbus.stream.errors import InvalidEvent

CONTENT = {"id": "a", "title": "Bees in the city"}
FORMS = {
    "Kafka Connect": (
        {"schema": {"type": "struct", "fields": []}, "payload": CONTENT},
        "value: a record of Kafka Connect with its schema is wrong, expected the payload alone "
        "(value.converter.schemas.enable=false)",
    ),
    "Debezium": (
        {"before": None, "after": CONTENT, "source": {"db": "cms"}, "op": "c", "ts_ms": 1},
        "value: a change event of Debezium is wrong, expected the row alone (the transform ExtractNewRecordState)",
    ),
    "a string": (
        json.dumps(CONTENT),
        "value: a string that holds JSON is wrong, expected the JSON itself: it was encoded twice",
    ),
}


@pytest.mark.parametrize(("value", "words"), FORMS.values(), ids=FORMS)
def test_it_is_named(value: object, words: str) -> None:
    for decode in (decode_content, decode_tag):
        with pytest.raises(InvalidEvent) as caught:
            decode(Record(b"a", json.dumps(value).encode()))
        assert str(caught.value) == words


def test_an_event_with_such_fields_of_its_own_passes() -> None:
    more = {"schema": {}, "payload": {}, "before": None, "after": None, "op": "c"}
    assert decode_content(Record(None, json.dumps(CONTENT | more).encode()))


@pytest.mark.parametrize("value", [b"{}", b"null", b'"plain"', b'{"schema": 1}', b'{"payload": {}, "x": 1}'])
def test_any_other_value_has_the_error_of_its_fields(value: bytes) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode_content(Record(None, value))
    assert "Connect" not in str(caught.value)
    assert "Debezium" not in str(caught.value)
