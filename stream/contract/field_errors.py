"""Translate pydantic errors into the contract's terms: field, value, expected value.

The expected value is derived from the model's own JSON Schema, so it always matches the published contract.
"""

import re
from collections.abc import Mapping
from functools import cache

from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import ErrorDetails

from tagbus.stream.errors import FieldError, InvalidEvent, Poison, Undecodable, shorten

STAGE = "decode"
SHOWN = 5  # field errors in one message; an event may have more wrong fields than anyone would read

# Errors of our own validators in stream/contract: their message is the expected value.
_OWN = {
    "blank",
    "empty_content",
    "decided_twice",
    "never_valid",
    "replaced_by_itself",
    "metadata_too_large",
    "metadata_not_finite",
    "not_rfc3339",
    "not_json_type",
    "no_data",
    "data_twice",
}
# pydantic reports these for the whole event; this is the field that its author has to fix.
_FIELD_OF = {
    "empty_content": "text",
    "decided_twice": "accepted",
    "never_valid": "valid_until",
    "replaced_by_itself": "replaced_by",
    "no_data": "data",
    "data_twice": "data_base64",
}
_NO_VALUE = {"missing", "no_data"}
# Messages of the JSON parser, and the expected value.
_SYNTAX = {
    "recursion limit": "JSON nested less than 200 deep",
    "number out of range": "JSON with numbers of at most 4300 digits",
    "hex escape": "JSON whose \\u escapes name a character, surrogates in pairs",
    "unicode code point": "JSON in UTF-8",
}
_WINDOW = 24  # bytes shown on each side of a syntax error

Schema = Mapping[str, JsonValue]


def poison(error: ValidationError, model: type[BaseModel], prefix: str = "") -> Poison:
    """Convert a pydantic error: Undecodable if the value is not JSON, InvalidEvent otherwise.

    `prefix` is prepended to every field: `ce_` for attributes from headers.
    """
    details = _details(error)
    if details[0]["type"] == "json_invalid":
        return Undecodable(STAGE, (_syntax(details[0], prefix.rstrip(".") or "value"),))
    return InvalidEvent(STAGE, _bounded(details, model, prefix))


def invalid(field: str, value: str, expected: str) -> InvalidEvent:
    """The error for one invalid field. `value` is shown unchanged: shorten it first."""
    return InvalidEvent(STAGE, (FieldError(field, value, expected),))


def undecodable(field: str, value: str, expected: str) -> Undecodable:
    """The error for bytes that are not an event. `value` is shown unchanged: shorten it first."""
    return Undecodable(STAGE, (FieldError(field, value, expected),))


def show(value: object) -> str:
    """A value of an event for error messages. For lists and objects only the size: their repr may be megabytes."""
    match value:
        case list() | tuple():
            return f"a list of length {len(value)}"
        case dict():
            return f"an object of size {len(value)}"
        case bool():
            return "true" if value else "false"
        case None:
            return "null"
        case _:
            return shorten(value)


def _details(error: ValidationError) -> list[ErrorDetails]:
    # For a missing field the input is the whole event, which pydantic converts to Python objects each time: 3 s for
    # four fields missing from 4 MB of nested lists.
    details = error.errors(include_url=False, include_input=False)
    return details if {detail["type"] for detail in details} <= _NO_VALUE else error.errors(include_url=False)


def _bounded(details: list[ErrorDetails], model: type[BaseModel], prefix: str) -> tuple[FieldError, ...]:
    found = tuple(_field_error(detail, model, prefix) for detail in details[:SHOWN])
    if len(details) <= SHOWN:
        return found
    rest = f"an event with {len(details)} wrong fields, {SHOWN} of them named here,"
    return (*found, FieldError("value", rest, "none"))


def _field_error(detail: ErrorDetails, model: type[BaseModel], prefix: str) -> FieldError:
    kind, value = detail["type"], detail.get("input")
    where = [_part(part) for part in detail["loc"]]
    if field := _FIELD_OF.get(kind):
        fields = value if isinstance(value, dict) else {}
        if kind == "empty_content" and fields.get("title") and not fields.get("text"):
            field = "title"
        where.append(field)
        value = fields.get(field, "")
    path = prefix + ".".join(where)
    shown = "(missing)" if kind in _NO_VALUE else show(value)
    return FieldError(path or "value", shown, _expected(detail, model))


def _part(part: str | int) -> str:
    """One step of a field's path. Keys chosen by the producer may be anything: escape and shorten them."""
    text = str(part)
    return text if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text) else shorten(text, 40)


def _expected(detail: ErrorDetails, model: type[BaseModel]) -> str:
    if detail["type"] in _OWN:
        return detail["msg"]
    node = _node(_schema(model), detail["loc"], _definitions(model))
    if node is None:
        return detail["msg"]
    if not detail["type"].startswith("datetime"):
        return words(node)
    # For hour 24 or second 60 pydantic says "unexpected extra characters", which is misleading.
    said = str(detail.get("ctx", {}).get("error"))
    return f"{words(node)} ({said if 'range' in said else _clock(str(detail['input']))})"


def _clock(time: str) -> str:
    """What is out of range in a time that has the form of RFC 3339, and whose date is right."""
    if time[17:19] == "60":
        return "leap seconds cannot be read: seconds end at 59"
    parts = (("hours", time[11:13], "23"), ("minutes", time[14:16], "59"), ("seconds", time[17:19], "59"))
    for unit, part, last in parts:
        if part > last:
            return f"{unit} end at {last}"
    return "an offset is at most 23:59"


@cache
def _schema(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def _definitions(model: type[BaseModel]) -> Schema:
    definitions = _schema(model).get("$defs", {})
    return definitions if isinstance(definitions, dict) else {}


def _node(schema: Schema, path: tuple[str | int, ...], definitions: Schema) -> Schema | None:
    """The schema of the field at `path`, None if there is none."""
    node: JsonValue | Schema = schema
    for part in path:
        node = _resolve(node, definitions)
        properties = node.get("properties", {})
        if isinstance(part, int):
            node = node.get("items")
        elif isinstance(properties, dict) and part in properties:
            node = properties[part]
        else:
            node = node.get("additionalProperties")
        if not isinstance(node, dict):
            return None
    return _resolve(node, definitions)


def _resolve(node: JsonValue | Schema, definitions: Schema) -> Schema:
    """Resolve references and unwrap `or null`."""
    if not isinstance(node, Mapping):
        return {}
    if isinstance(name := node.get("$ref"), str):
        return _resolve(definitions.get(name.rpartition("/")[2]), definitions)
    branches = node.get("anyOf")
    if "type" not in node and isinstance(branches, list):
        named = [branch for branch in branches if branch != {"type": "null"}]
        return _resolve(named[0], definitions) if named else {}
    return node


def words(node: Schema) -> str:
    """Describe a JSON Schema in words: `a string of 1 to 256 characters`."""
    if isinstance(choices := node.get("enum", [node["const"]] if "const" in node else None), list):
        return " or ".join(f"`{choice}`" for choice in choices)
    match node.get("type"):
        case "string" if node.get("format") == "date-time":
            return "an RFC 3339 time with its offset, for instance 2026-01-31T09:30:00Z"
        case "string":
            return "a string" + _range(node, "minLength", "maxLength", "characters")
        case "array":
            items = node.get("items")
            each = f", each {words(items)}" if isinstance(items, dict) and "type" in items else ""
            return "a list" + _range(node, "minItems", "maxItems", "items") + each
        case "object":
            return "an object"
        case "integer":
            return "a whole number" + _range(node, "minimum", "maximum", "")
        case "number":
            return "a finite number" + _range(node, "minimum", "maximum", "")
        case "boolean":
            return "true or false"
        case _:
            return "what the contract says (`tagbus schema`)"


def _range(node: Schema, least: str, most: str, unit: str) -> str:
    low, high = node.get(least), node.get(most)
    above = node.get("exclusiveMaximum")
    if high is None and isinstance(above, int) and node.get("type") == "integer":
        high = above - 1
    if low is not None and high is not None:
        return f" of {low} to {high} {unit}".rstrip()
    if high is not None:
        return f" of at most {high} {unit}".rstrip()
    if low is not None:
        return f" of at least {low} {unit}".rstrip()
    return ""


def _syntax(detail: ErrorDetails, field: str) -> FieldError:
    """The position of a JSON syntax error, the bytes around it and the parser's reason."""
    value = detail["input"]
    raw = value if isinstance(value, bytes) else str(value).encode(errors="replace")
    reason = str(detail.get("ctx", {}).get("error", detail["msg"]))
    if not raw.strip():
        return FieldError(field, "empty", "JSON; a tombstone is a record without a value")
    if raw.startswith(b"\xef\xbb\xbf"):
        return FieldError(field, shorten(raw), "JSON without a byte order mark at its start (RFC 8259, section 8.1)")
    expected = next((right for said, right in _SYNTAX.items() if said in reason), "JSON in UTF-8")
    near = max(0, _offset(raw, reason) - _WINDOW)
    return FieldError(field, shorten(raw[near : near + 2 * _WINDOW]), f"{expected} ({reason})")


def _offset(raw: bytes, reason: str) -> int:
    """The byte offset of the parser error; its columns count bytes."""
    found = re.search(r"line (\d+) column (\d+)", reason)
    if found is None:
        return 0
    start = 0
    for _ in range(int(found[1]) - 1):
        start = raw.find(b"\n", start) + 1
    return start + int(found[2])
