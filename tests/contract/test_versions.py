"""Records of every version of the contract decode forever, and old readers can read what is written now.

With one exception: 2.0.0 gave results another shape. What producers and editors wrote for 1.x is read as ever.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import assume, given
from jsonschema import Draft202012Validator
from pydantic import JsonValue

from tagbus.stream.contract.codec import (
    DECODERS,
    Keyed,
    Record,
    Tombstone,
    encode,
    encode_record,
    read_dead_letter,
    unframed,
)
from tagbus.stream.contract.events import DeadLetter
from tagbus.stream.contract.release import decode_release, encode_release
from tagbus.stream.contract.schema import CONTRACT_VERSION, DEAD_LETTERS, MODELS, RELEASES, json_schema
from tests.contract.additive import changes, fields, least, with_strangers
from tests.contract.additive import given as given_fields
from tests.contract.strategies import EVENTS, INPUTS

# A folder for each version: for each topic its JSON Schema, and records with what is in them. None is ever changed.
FIXTURES = Path(__file__).parent / "fixtures"
VERSIONS = sorted(folder.name for folder in FIXTURES.iterdir())
# Since then nothing may change but that optional fields come.
ADDITIVE = [version for version in VERSIONS if version >= "2"]
WORDS = {model: word for word, model in MODELS.items()}


@dataclass(frozen=True)
class Example:
    """A record, and what must be read from it: the fields named in `event`, or a tombstone."""

    topic: str
    record: Record
    event: dict[str, JsonValue] | None


def schema(version: str, topic: str) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = json.loads((FIXTURES / version / f"{topic}.json").read_text())["schema"]
    return found


def of_then(read: JsonValue, then: JsonValue) -> JsonValue:
    """What is read now, without the fields that came later, also in objects inside."""
    if isinstance(read, dict) and isinstance(then, dict):
        return {name: of_then(read[name], value) for name, value in then.items()}
    if isinstance(read, list) and isinstance(then, list):
        return [of_then(*pair) for pair in zip(read, then, strict=True)]
    return read


def topics(version: str) -> set[str]:
    return {path.stem for path in (FIXTURES / version).iterdir()}


def examples() -> list[object]:
    """Every record of every version, named."""
    found = []
    for version in VERSIONS:
        for path in sorted((FIXTURES / version).iterdir()):
            for one in json.loads(path.read_text())["records"]:
                key, value = (None if one[part] is None else one[part].encode() for part in ("key", "value"))
                headers = tuple((name, text.encode()) for name, text in one["headers"])
                example = Example(path.stem, Record(key, value, headers), one["event"])
                found.append(pytest.param(example, id=f"{version} {path.stem}: {one['what']}"))
    return found


@pytest.mark.parametrize("example", examples())
def test_a_record_of_any_version_is_read(example: Example) -> None:
    if example.topic == DEAD_LETTERS:
        letter = read_dead_letter(example.record.headers).model_dump()
        assert letter == letter | (example.event or {})
        return
    read, write = (
        (decode_release, encode_release) if example.topic == RELEASES else (DECODERS[example.topic], encode_record)
    )
    event = read(example.record)

    if example.event is None:
        assert event == Tombstone((example.record.key or b"").decode())
    else:
        assert not isinstance(event, Tombstone)
        assert of_then(json.loads(write(event).value or b""), example.event) == example.event


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_has_the_topics_of_the_one_before(version: str) -> None:
    before = VERSIONS[max(0, VERSIONS.index(version) - 1)]

    assert topics(version) >= topics(before)
    assert topics(VERSIONS[-1]) == {*MODELS, DEAD_LETTERS, RELEASES}


@pytest.mark.parametrize("topic", [*MODELS, DEAD_LETTERS, RELEASES])
def test_the_version_of_today_is_among_them(topic: str) -> None:
    """A field that is added wants a version of its own, and records of it."""
    assert json.loads(json.dumps(json_schema(topic))) == schema(CONTRACT_VERSION, topic)


@pytest.mark.parametrize("version", VERSIONS)
@given(event=INPUTS)
def test_what_is_published_today_is_valid_to_any_version(version: str, event: Keyed) -> None:
    Draft202012Validator(schema(version, WORDS[type(event)])).validate(json.loads(encode(event)))


@pytest.mark.parametrize("version", ADDITIVE)
@given(event=EVENTS)
def test_what_is_written_today_is_valid_since_2(version: str, event: Keyed) -> None:
    assume(WORDS[type(event)] in topics(version))
    Draft202012Validator(schema(version, WORDS[type(event)])).validate(json.loads(encode(event)))


@pytest.mark.parametrize(
    ("version", "topic"), [(version, topic) for version in ADDITIVE for topic in sorted(topics(version))]
)
def test_a_schema_is_only_ever_extended(version: str, topic: str) -> None:
    assert list(changes(schema(version, topic), json.loads(json.dumps(json_schema(topic))))) == []


BEFORE: dict[str, JsonValue] = {
    "description": "One.",
    "properties": {"id": {"maxLength": 4, "type": "string"}, "kind": {"enum": ["a"], "title": "Kind"}},
    "required": ["id"],
}
ID: JsonValue = {"maxLength": 4, "type": "string"}
LONGER: JsonValue = {"maxLength": 5, "type": "string"}
KIND: JsonValue = {"enum": ["a"], "title": "Kind"}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"description": "Another."}, []),
        ({"properties": {"id": ID, "kind": KIND, "title": {"type": "string"}}}, []),
        ({"$defs": {"New": {}}}, []),
        ({"properties": {"id": ID}}, ["$.properties.kind: gone"]),
        ({"properties": {"id": {"type": "string"}, "kind": KIND}}, ["$.properties.id.maxLength: gone"]),
        ({"properties": {"id": LONGER, "kind": KIND}}, ["$.properties.id.maxLength: 4 became 5"]),
        ({"properties": {"id": ID, "kind": {"enum": ["a", "b"]}}}, ["$.properties.kind.enum: ['a'] became ['a', 'b']"]),
        ({"properties": {"id": ID, "kind": {"enum": ["a"], "minLength": 1}}}, ["$.properties.kind.minLength: new"]),
        ({"required": ["id", "kind"]}, ["$.required: ['id'] became ['id', 'kind']"]),
        ({"required": []}, ["$.required: ['id'] became []"]),
    ],
)  # fmt: skip
def test_additive_means_optional_fields_and_nothing_else(change: dict[str, JsonValue], found: list[str]) -> None:
    assert list(changes(BEFORE, BEFORE | change)) == found


# The records of today


def todays(what: str) -> list[object]:
    """Those of one kind, of every topic."""
    records = [one.values[0] for one in examples() if one.id == f"{CONTRACT_VERSION} {one.values[0].topic}: {what}"]  # type: ignore[attr-defined]
    return [pytest.param(one, id=one.topic) for one in records]


@pytest.mark.parametrize("example", todays("every field"))
def test_a_record_with_every_field_set_comes_back_as_it_is(example: Example) -> None:
    event = DECODERS[example.topic](example.record)
    assert not isinstance(event, Tombstone)
    value = json.loads(example.record.value or b"")
    known = fields(json_schema(example.topic))
    filled = {path for path, one in given_fields(value, known) if one not in (None, [], {}, "")}

    assert filled == known.keys(), "a new field belongs into the record too"
    assert json.loads(encode(event)) == value
    assert DECODERS[example.topic](encode_record(event)) == event


@pytest.mark.parametrize("example", todays("the least"))
def test_a_record_without_any_optional_field_is_read(example: Example) -> None:
    event = DECODERS[example.topic](example.record)
    assert not isinstance(event, Tombstone)
    known = fields(json_schema(example.topic))
    # Of title and text a content needs one.
    needed = least(known) | ({"text"} if example.topic == "content" else set())

    assert {path for path, _ in given_fields(json.loads(example.record.value or b""), known)} == needed
    assert DECODERS[example.topic](encode_record(event)) == event


@pytest.mark.parametrize("example", todays("every field"))
def test_fields_of_a_later_version_pass_in_every_object(example: Example) -> None:
    """Old workers and new ones share a group."""
    value: JsonValue = json.loads(example.record.value or b"")
    later = json.dumps(with_strangers(value, fields(json_schema(example.topic)))).encode()

    assert later.count(b"from_the_future") > 0
    assert DECODERS[example.topic](Record(example.record.key, later)) == DECODERS[example.topic](example.record)


@pytest.mark.parametrize("what", ["every field", "the least"])
def test_every_topic_has_such_a_record(what: str) -> None:
    assert {one.values[0].topic for one in todays(what)} == set(MODELS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_headers_of_a_dead_letter_that_were_required_are_still_written(version: str) -> None:
    required = schema(version, DEAD_LETTERS)["required"]

    assert set(required if isinstance(required, list) else []) <= set(json_schema(DEAD_LETTERS)["required"])  # type: ignore[arg-type]


def test_a_prefix_of_a_schemas_id_is_among_the_records() -> None:
    values = [one.values[0].record.value for one in examples()]  # type: ignore[attr-defined]

    assert any(value is not None and unframed(value) != value for value in values)


def test_a_dead_letter_without_the_newer_headers_has_not_been_replayed() -> None:
    letters = [one.values[0] for one in examples() if one.values[0].topic == DEAD_LETTERS]  # type: ignore[attr-defined]
    old = [read_dead_letter(one.record.headers) for one in letters if "tagbus.replays" not in dict(one.record.headers)]

    assert old
    assert all(letter.replays == DeadLetter.model_fields["replays"].default for letter in old)
