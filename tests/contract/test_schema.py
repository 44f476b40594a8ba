"""The published documents: valid, complete, and saying the same as the models."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from jsonschema import Draft7Validator, Draft202012Validator
from pydantic import JsonValue

from tagbus.stream.config import TopicSettings
from tagbus.stream.contract.asyncapi import asyncapi
from tagbus.stream.contract.codec import (
    Record,
    dead_letter_headers,
    decode_content,
    decode_decision,
    decode_exemplar,
    decode_knowledge,
    decode_tag,
    encode,
    event_key,
    source_headers,
)
from tagbus.stream.contract.decision import Decision
from tagbus.stream.contract.events import Content, DeadLetter, Exemplar, Knowledge, Tag, TaggedContent
from tagbus.stream.contract.schema import DEAD_LETTERS, EXAMPLES, MODELS, RELEASES, json_schema
from tagbus.stream.errors import Poison, UserError
from tests.contract.strategies import DECISIONS, EVENTS, INPUTS, KNOWLEDGE, LETTERS

# The AsyncAPI initiative's own schema of AsyncAPI 3.0.0; its first line says where it is from.
OFFICIAL = json.loads((Path(__file__).parent / "asyncapi-3.0.0.json").read_text())
TOPICS = TopicSettings(content="news", dead_letters="news.dlq", partitions=7, replication=3)
VALIDATORS = {word: Draft202012Validator(json_schema(word)) for word in (*MODELS, DEAD_LETTERS)}
WORDS = {model: word for word, model in MODELS.items()}

Event = Content | Tag | Exemplar | Knowledge | TaggedContent | Decision


def at(document: JsonValue, *path: str) -> JsonValue:
    for part in path:
        assert isinstance(document, dict)
        document = document[part]
    return document


def resolve(document: JsonValue, reference: str) -> JsonValue:
    """What a local reference (RFC 6901) points at; KeyError where there is nothing."""
    assert reference.startswith("#/")
    return at(document, *(part.replace("~1", "/").replace("~0", "~") for part in reference[2:].split("/")))


def references(node: JsonValue) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "$ref":
                assert isinstance(value, str)
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def component(name: str) -> Draft7Validator:
    """A validator of one of the document's schemas. AsyncAPI's schema object is a superset of JSON Schema draft 7."""
    return Draft7Validator({"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]})


DOCUMENT = asyncapi(TOPICS)


# AsyncAPI


def test_the_document_is_valid_asyncapi() -> None:
    Draft7Validator(OFFICIAL).validate(DOCUMENT)


def test_every_reference_points_at_something() -> None:
    found = set(references(DOCUMENT))

    assert found
    for reference in found:
        resolve(DOCUMENT, reference)


def test_nothing_is_defined_that_is_not_referred_to() -> None:
    components = at(DOCUMENT, "components")
    assert isinstance(components, dict)
    defined = {f"#/components/{kind}/{name}" for kind in components for name in _names(components[kind])}

    assert defined == {reference for reference in references(DOCUMENT) if reference.startswith("#/components/")}


def _names(node: JsonValue) -> list[str]:
    assert isinstance(node, dict)
    return list(node)


def test_the_channels_have_the_addresses_and_the_layout_of_the_settings() -> None:
    channels = at(DOCUMENT, "channels")
    assert isinstance(channels, dict)

    assert {name: at(channel, "address") for name, channel in channels.items()} == {
        "content": "news",
        "tags": "tags",
        "exemplars": "exemplars",
        "knowledge": "knowledge",
        "tagged": "tagged",
        "feedback": "feedback",
        "dead_letters": "news.dlq",
        "releases": "releases",
    }
    for name, channel in channels.items():
        kafka = at(channel, "bindings", "kafka")
        assert isinstance(kafka, dict)
        partitions = 1 if name == "releases" else 7
        assert (kafka["partitions"], kafka["replicas"], kafka["topic"]) == (partitions, 3, at(channel, "address"))
        compacted = kafka.get("topicConfiguration") == {"cleanup.policy": ["compact"]}
        assert compacted == (name in {"tags", "exemplars", "knowledge", "releases"})


def test_the_operations_say_what_tagbus_receives_and_sends() -> None:
    operations = at(DOCUMENT, "operations")
    assert isinstance(operations, dict)
    found = {(at(operation, "action"), at(operation, "channel", "$ref")) for operation in operations.values()}

    assert found == {
        ("receive", "#/channels/content"),
        ("receive", "#/channels/tags"),
        ("receive", "#/channels/exemplars"),
        ("receive", "#/channels/knowledge"),
        ("receive", "#/channels/feedback"),
        ("receive", "#/channels/releases"),
        ("send", "#/channels/tagged"),
        ("send", "#/channels/dead_letters"),
        ("send", "#/channels/exemplars"),
        ("send", "#/channels/feedback"),
    }


def test_the_messages_of_an_operation_are_its_channels() -> None:
    operations = at(DOCUMENT, "operations")
    assert isinstance(operations, dict)
    for operation in operations.values():
        channel = at(operation, "channel", "$ref")
        messages = at(operation, "messages")
        assert isinstance(channel, str)
        assert isinstance(messages, list)
        assert messages
        for message in messages:
            reference = at(message, "$ref")
            assert isinstance(reference, str)
            assert reference.startswith(f"{channel}/messages/")


@pytest.mark.parametrize("title", ["Content", "Tag", "Exemplar", "Knowledge", "TaggedContent", "Decision", "Release"])
def test_every_compacted_or_withdrawable_topic_describes_its_tombstones(title: str) -> None:
    assert at(DOCUMENT, "components", "messages", f"{title}Tombstone", "payload") == {"type": "null"}


def test_every_schema_of_the_document_is_valid_json_schema() -> None:
    schemas = at(DOCUMENT, "components", "schemas")
    assert isinstance(schemas, dict)
    for schema in schemas.values():
        assert isinstance(schema, dict)
        Draft7Validator.check_schema(schema)
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("title", ["Content", "Tag", "Exemplar", "Knowledge", "TaggedContent", "Decision"])
def test_the_examples_of_the_document_are_valid(title: str) -> None:
    examples = at(DOCUMENT, "components", "messages", title, "examples")
    assert isinstance(examples, list)
    assert examples
    for example in examples:
        component(title).validate(at(example, "payload"))


@given(INPUTS | KNOWLEDGE | DECISIONS)
def test_keys_are_as_the_document_says(event: Content | Tag | Exemplar | Knowledge | Decision) -> None:
    schema = at(DOCUMENT, "components", "messages", type(event).__name__, "bindings", "kafka", "key")
    assert isinstance(schema, dict)

    Draft7Validator(schema).validate(event_key(event))


@given(LETTERS)
def test_headers_are_as_the_document_says(letter: DeadLetter) -> None:
    dead = {name: raw.decode() for name, raw in dead_letter_headers(letter)}
    source = {name: raw.decode() for name, raw in source_headers(letter.topic, letter.partition, letter.offset)}

    component("DeadLetterHeaders").validate(dead)
    component("SourceHeaders").validate(source)
    VALIDATORS[DEAD_LETTERS].validate(dead)


ENVELOPE: dict[str, JsonValue] = {"specversion": "1.0", "id": "e-1", "source": "/cms", "type": "article.published"}
BEES: dict[str, JsonValue] = {"id": "a", "title": "Bees"}


@pytest.mark.parametrize(
    ("envelope", "valid"),
    [
        (ENVELOPE | {"data": BEES}, True),
        (ENVELOPE | {"data_base64": "eyJpZCI6ImEiLCJ0aXRsZSI6IkJlZXMifQ=="}, True),
        (ENVELOPE | {"data": BEES, "time": "2026-01-31T12:00:00Z", "anything": 1}, True),
        (ENVELOPE, False),
        (ENVELOPE | {"data": BEES, "data_base64": "e30="}, False),
        (ENVELOPE | {"data": BEES, "specversion": "0.3"}, False),
        (ENVELOPE | {"data": BEES, "source": ""}, False),
        (ENVELOPE | {"data": {"id": 5}}, False),
        ({"data": BEES}, False),
    ],
)
def test_a_cloudevent_is_described_as_it_is_read(envelope: dict[str, JsonValue], valid: bool) -> None:  # noqa: FBT001
    payload = at(DOCUMENT, "components", "messages", "ContentCloudEvent", "payload")
    assert isinstance(payload, dict)
    headers = (("content-type", b"application/cloudevents+json"),)

    assert Draft7Validator({**payload, "components": DOCUMENT["components"]}).is_valid(envelope) is valid
    try:
        decode_content(Record(b"a", json.dumps(envelope).encode(), headers))
    except Poison:
        assert not valid
    else:
        assert valid


@pytest.mark.parametrize(
    ("headers", "valid"),
    [
        ({}, True),
        ({"traceparent": "x"}, True),
        ({"ce_specversion": "1.0", "ce_id": "1", "ce_source": "s", "ce_type": "t"}, True),
        ({"ce_specversion": "1.0"}, False),
        ({"ce_id": "1", "ce_source": "s", "ce_type": "t"}, False),
    ],
)
def test_binary_mode_is_all_of_the_required_headers_or_none(headers: Mapping[str, str], valid: bool) -> None:  # noqa: FBT001
    assert component("CloudEventHeaders").is_valid(headers) is valid


# JSON Schema


@pytest.mark.parametrize("word", [*MODELS, DEAD_LETTERS, RELEASES])
def test_the_schema_of_a_topic_is_valid_and_has_a_title(word: str) -> None:
    schema = json_schema(word)

    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"]


@given(EVENTS)
def test_whatever_is_encoded_is_valid(event: Event) -> None:
    value = json.loads(encode(event))

    VALIDATORS[WORDS[type(event)]].validate(value)
    component(type(event).__name__).validate(value)


@pytest.mark.parametrize("word", EXAMPLES)
def test_the_examples_are_valid(word: str) -> None:
    VALIDATORS[word].validate(json.loads(encode(EXAMPLES[word])))


def test_an_unknown_topic_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UserError) as caught:
        json_schema("contents")

    assert str(caught.value) == (
        "'contents' is not a topic of the contract; "
        "they are content, tags, exemplars, knowledge, tagged, feedback, content.dlq, releases"
    )


DECODE = {
    "content": decode_content,
    "tags": decode_tag,
    "exemplars": decode_exemplar,
    "knowledge": decode_knowledge,
    "feedback": decode_decision,
}
DECIDED: dict[str, JsonValue] = {"id": "a", "decision": "d", "who": "w", "time": "2026-01-31T09:30:00Z", "mode": "api"}


@pytest.mark.parametrize(
    ("word", "fields"),
    [
        ("content", {}),
        ("content", {"id": "a"}),
        ("content", {"id": "a", "title": " ", "text": "\n"}),
        ("content", {"id": 5, "title": "x"}),
        ("content", {"id": "", "title": "x"}),
        ("content", {"id": "x" * 257, "title": "x"}),
        ("content", {"id": "a", "title": "x" * 4097}),
        ("content", {"id": "a", "title": None, "text": "x"}),
        ("content", {"id": "a", "text": "x" * 500_001}),
        ("content", {"id": "a", "title": "x", "language": "x" * 36}),
        ("content", {"id": "a", "title": "x", "language": 1}),
        ("content", {"id": "a", "title": "x", "time": 1700000000}),
        ("content", {"id": "a", "title": "x", "time": "1700000000"}),
        ("content", {"id": "a", "title": "x", "time": "2026-01-31T09:30:00"}),
        ("content", {"id": "a", "title": "x", "time": "2026-01-31 09:30:00Z"}),
        ("content", {"id": "a", "title": "x", "metadata": []}),
        ("content", {"id": "a", "title": "x", "metadata": None}),
        ("tags", {"id": "a"}),
        ("tags", {"id": "a", "name": ""}),
        ("tags", {"id": "a", "name": "x" * 513}),
        ("tags", {"id": "a", "name": "x", "description": "x" * 4097}),
        ("tags", {"id": "a", "name": "x", "aliases": "x"}),
        ("tags", {"id": "a", "name": "x", "aliases": [""]}),
        ("tags", {"id": "a", "name": "x", "aliases": ["x"] * 1001}),
        ("tags", {"id": "a", "name": "x", "parents": [1]}),
        ("content", {"id": "a", "title": "x", "scopes": "news"}),
        ("content", {"id": "a", "title": "x", "scopes": ["x"] * 65}),
        ("tags", {"id": "a", "name": "x", "names": {"fi": ""}}),
        ("tags", {"id": "a", "name": "x", "names": {"x" * 36: "y"}}),
        ("tags", {"id": "a", "name": "x", "names": {"": "y"}}),
        ("knowledge", {"id": "a", "kind": "rule"}),
        ("knowledge", {"id": "a", "kind": "", "text": "x"}),
        ("knowledge", {"id": "a", "kind": "rule", "text": ""}),
        ("knowledge", {"id": "a", "kind": "rule", "text": "x", "valid_from": "2026"}),
        ("exemplars", {"title": "x"}),
        ("exemplars", {"id": "a", "source": "robot"}),
        ("exemplars", {"id": "a", "source": None}),
        ("exemplars", {"id": "a", "accepted": {"p": True}}),
        ("exemplars", {"id": "a", "rejected": ["x" * 257]}),
        ("exemplars", {"id": "a", "time": "yesterday"}),
        *(("feedback", {key: value for key, value in DECIDED.items() if key != name}) for name in DECIDED),
        ("feedback", DECIDED | {"mode": "guess"}),
        ("feedback", DECIDED | {"shown": [{"tag": "p", "rank": 0}]}),
        ("feedback", DECIDED | {"shown": [{"tag": "p", "rank": 1, "propensity": 0}]}),
        ("feedback", DECIDED | {"result": {"topic": "tagged", "partition": 0}}),
        ("feedback", DECIDED | {"replaces": "yes"}),
    ],
)
def test_the_schema_refuses_what_the_codec_refuses(word: str, fields: dict[str, JsonValue]) -> None:
    key = b"a/people" if word == "exemplars" else b"a"

    assert not VALIDATORS[word].is_valid(fields)
    with pytest.raises(Poison):
        DECODE[word](Record(key, json.dumps(fields).encode()))
