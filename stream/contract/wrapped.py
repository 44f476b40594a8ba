"""Detect values in which another program has wrapped an event, so that the error names the wrapper.

Sources: Kafka Connect, JsonConverter with schemas.enable; Debezium, the structure of change events.
"""

from typing import Final

from pydantic_core import from_json

from tagbus.stream.contract import cloudevents
from tagbus.stream.contract.field_errors import invalid
from tagbus.stream.errors import InvalidEvent

# Of larger values only a CloudEvent is recognised: Python objects of 4 MB of nested lists take 0.7 s.
_BYTES: Final = 100_000


def wrapped(value: bytes) -> InvalidEvent | None:
    """The error for a wrapped value; None for any other. Called only for values that are not events."""
    return (_named(value) if len(value) <= _BYTES else None) or cloudevents.unmarked(value)


def _named(value: bytes) -> InvalidEvent | None:
    try:
        found = from_json(value)
    except ValueError:
        return None
    if isinstance(found, str) and found.lstrip().startswith("{"):
        return invalid("value", "a string that holds JSON", "the JSON itself: it was encoded twice")
    if not isinstance(found, dict):
        return None
    if found.keys() == {"schema", "payload"}:
        right = "the payload alone (value.converter.schemas.enable=false)"
        return invalid("value", "a record of Kafka Connect with its schema", right)
    if {"before", "after", "op"} <= found.keys():
        right = "the row alone (the transform ExtractNewRecordState)"
        return invalid("value", "a change event of Debezium", right)
    return None
