"""Records of every released version of the contract decode for ever, and what is written now an old reader reads."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator
from pydantic import JsonValue

from tagbus.stream.contract.codec import (
    Keyed,
    Record,
    Tombstone,
    decode_content,
    decode_exemplar,
    decode_tag,
    decode_tagged,
    encode,
    read_dead_letter,
    unframed,
)
from tagbus.stream.contract.events import Content, DeadLetter, Exemplar, Tag, TaggedContent
from tagbus.stream.contract.schema import CONTRACT_VERSION, DEAD_LETTERS, MODELS, json_schema
from tests.contract.strategies import EVENTS, EVENTS_BY_RECALL

# A folder for each version: for each topic its JSON Schema, and records with what is in them. None is ever changed.
FIXTURES = Path(__file__).parent / "fixtures"
VERSIONS = sorted(folder.name for folder in FIXTURES.iterdir())
DECODE: Mapping[str, Callable[[Record], Keyed | Tombstone]] = {
    "content": decode_content,
    "tags": decode_tag,
    "exemplars": decode_exemplar,
    "tagged": decode_tagged,
}
WORDS = {Content: "content", Tag: "tags", Exemplar: "exemplars", TaggedContent: "tagged"}


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
    event = DECODE[example.topic](example.record)

    if example.event is None:
        assert event == Tombstone((example.record.key or b"").decode())
    else:
        assert not isinstance(event, Tombstone)
        assert of_then(json.loads(encode(event)), example.event) == example.event


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_has_the_topics_of_the_one_before(version: str) -> None:
    before = VERSIONS[max(0, VERSIONS.index(version) - 1)]

    assert topics(version) >= topics(before)
    assert topics(VERSIONS[-1]) == {*MODELS, DEAD_LETTERS}


@pytest.mark.parametrize("topic", [*MODELS, DEAD_LETTERS])
def test_the_version_of_today_is_among_them(topic: str) -> None:
    """A field that is added wants a version of its own, and records of it."""
    assert json.loads(json.dumps(json_schema(topic))) == schema(CONTRACT_VERSION, topic)


@pytest.mark.parametrize("version", VERSIONS)
@given(event=EVENTS_BY_RECALL)
def test_what_is_written_without_heads_and_ranker_is_valid_to_any_version(version: str, event: Keyed) -> None:
    Draft202012Validator(schema(version, WORDS[type(event)])).validate(json.loads(encode(event)))


@pytest.mark.parametrize("version", [version for version in VERSIONS if version >= "1.2.0"])
@given(event=EVENTS)
def test_what_is_written_today_is_valid_since_a_result_names_fusion_and_rank(version: str, event: Keyed) -> None:
    """A reader of an older version that checks `stage` against its list refuses those two words."""
    Draft202012Validator(schema(version, WORDS[type(event)])).validate(json.loads(encode(event)))


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
