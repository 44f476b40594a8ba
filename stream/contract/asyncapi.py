"""The AsyncAPI 3.0.0 document of all topics, generated from the models."""

from typing import Literal

from pydantic import BaseModel, JsonValue
from pydantic.json_schema import models_json_schema

from tagbus.stream.config import TopicSettings
from tagbus.stream.contract.cloudevents import STRUCTURED, Attributes
from tagbus.stream.contract.codec import EXEMPLAR_KEY_CHARS, SOURCE_HEADERS, SOURCES
from tagbus.stream.contract.fields import ID_CHARS
from tagbus.stream.contract.release import ACTIVE, CALIBRATION, NAME, PATH, Active, Curve, ReleaseRecord
from tagbus.stream.contract.schema import (
    CONTRACT_VERSION,
    EXAMPLES,
    MODELS,
    Json,
    dead_letter_headers,
    number_schema,
    text_schema,
)

Topic = Literal["content", "tags", "exemplars", "knowledge", "tagged", "feedback", "dead_letters", "releases"]

KAFKA_BINDING = "0.5.0"
COMPACTED = frozenset({"tags", "exemplars", "knowledge", "releases"})

_MEANING = {
    "content": "what is to be tagged; a record without a value withdraws a content",
    "tags": "the taxonomy; a record without a value retires a tag",
    "exemplars": "contents whose tags are known, from people or machine; a record without a value withdraws one",
    "knowledge": "definitions, rules and news for prompts; a record without a value withdraws one",
    "tagged": "the product: scored tags of each content; a record without a value where a content was withdrawn",
    "feedback": "the log of people's decisions on tags; a record without a value drops all on a withdrawn content",
    "dead_letters": "events that can never be tagged, byte for byte as they came, the reason in the headers",
    "releases": f"the releases under their names, under the key `{ACTIVE}` which one is in force, and the calibrations "
    f"under `{CALIBRATION}RELEASE/PATH`; what has no value is dropped",
}
_TITLES = {word: model.__name__ for word, model in MODELS.items()}
_CORRELATED = {"tags": "tagId", "knowledge": "segmentId"}


def asyncapi(topics: TopicSettings) -> Json:
    """Build the AsyncAPI 3.0.0 document for these topic names. Operations are named from tagbus's point of view."""
    addresses: dict[Topic, str] = {
        "content": topics.content,
        "tags": topics.tags,
        "exemplars": topics.exemplars,
        "knowledge": topics.knowledge,
        "tagged": topics.tagged,
        "feedback": topics.feedback,
        "dead_letters": topics.dead_letters,
        "releases": topics.releases,
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "tagbus",
            "version": CONTRACT_VERSION,
            "description": "Content comes in, scored and explained tags go out. Values are JSON in UTF-8, or"
            " CloudEvents 1.0 in binary or structured mode. Produce with murmur2, as Java clients do, so that a key"
            " lands on one partition whoever writes it. Read `tagged` with isolation.level=read_committed.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {name: _channel(name, address, topics) for name, address in addresses.items()},
        "operations": {
            "receiveContent": _operation("receive", "content", "Reads content in batches and tags it."),
            "receiveTags": _operation("receive", "tags", "Builds the memory of tags and follows it."),
            "receiveExemplars": _operation("receive", "exemplars", "Builds the memory of known contents."),
            "receiveKnowledge": _operation("receive", "knowledge", "Builds the memory of background knowledge."),
            "receiveFeedback": _operation("receive", "feedback", "Joins people's decisions to exemplars."),
            "receiveReleases": _operation("receive", "releases", "Holds every release, and tags by the active one."),
            "sendTagged": _operation("send", "tagged", "One record for each content, in one transaction with offsets."),
            "sendDeadLetters": _operation("send", "dead_letters", "Sets aside what can never be tagged."),
            "sendExemplars": _operation(
                "send", "exemplars", "Writes sure results as `machine`, what people decided, and tombstones."
            ),
            "sendFeedback": _operation("send", "feedback", "Drops the decisions on withdrawn contents."),
        },
        "components": {"schemas": _schemas(), "messages": _messages(), "correlationIds": _correlations()},
    }


def _channel(name: Topic, address: str, topics: TopicSettings) -> Json:
    kafka: Json = {
        "topic": address,
        "partitions": 1 if name == "releases" else topics.partitions,
        "replicas": topics.replication,
        "bindingVersion": KAFKA_BINDING,
    }
    if name in COMPACTED:
        kafka["topicConfiguration"] = {"cleanup.policy": ["compact"]}
    return {
        "address": address,
        "description": _MEANING[name],
        "messages": {message: _ref("messages", message) for message in _messages_of(name)},
        "bindings": {"kafka": kafka},
    }


def _operation(action: Literal["send", "receive"], channel: Topic, summary: str) -> Json:
    # Only references to the channel's own messages are allowed here (AsyncAPI 3.0.0, Operation Object).
    messages: list[JsonValue] = [
        {"$ref": f"#/channels/{channel}/messages/{name}"}
        for name in _messages_of(channel)
        if action == "receive" or not name.endswith("CloudEvent")
    ]
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary, "messages": messages}


def _messages_of(channel: Topic) -> tuple[str, ...]:
    if channel == "dead_letters":
        return ("DeadLetter",)
    if channel == "releases":
        return ("ReleaseRecord", "ReleaseTombstone", "Active", "Curve", "CurveTombstone")
    title = _TITLES[channel]
    plain = (title, f"{title}Tombstone")
    return plain if channel == "tagged" else (*plain, f"{title}CloudEvent")


def _messages() -> Json:
    messages: Json = {"DeadLetter": _dead_letter_message(), **_release_messages()}
    for word, title in _TITLES.items():
        headers = "SourceHeaders" if word == "tagged" else "CloudEventHeaders"
        messages[title] = _message(word, title, headers) | {
            "contentType": "application/json",
            "payload": _ref("schemas", title),
            "correlationId": _ref("correlationIds", _CORRELATED.get(word, "contentId")),
            "examples": [{"name": title, "payload": EXAMPLES[word].model_dump(mode="json")}],
        }
        messages[f"{title}Tombstone"] = _message(word, f"{title}Tombstone", headers) | {"payload": {"type": "null"}}
        if word != "tagged":
            messages[f"{title}CloudEvent"] = _message(word, f"{title}CloudEvent", "StructuredHeaders") | {
                "contentType": STRUCTURED,
                "payload": _envelope(title),
            }
    return messages


def _message(word: str, name: str, headers: str) -> Json:
    form = "without a value" if name.endswith("Tombstone") else "with a value"
    return {
        "name": name,
        "title": name,
        "summary": f"A record of `{word}` {form}.",
        "headers": _ref("schemas", headers),
        "bindings": {"kafka": {"key": _key(word), "bindingVersion": KAFKA_BINDING}},
    }


def _key(word: str) -> Json:
    # Inlined in every message: the official schema of AsyncAPI 3.0.0 rejects a reference here.
    if word == "exemplars":
        return {
            "type": "string",
            "maxLength": EXEMPLAR_KEY_CHARS,
            "pattern": f"^[\\s\\S]+/({'|'.join(SOURCES)})$",
            "description": "content id and source, so that neither source erases the other",
        }
    return {"type": "string", "minLength": 1, "maxLength": ID_CHARS, "description": "the event's id, in UTF-8"}


def _dead_letter_message() -> Json:
    return {
        "name": "DeadLetter",
        "title": "DeadLetter",
        "summary": "Key, value and headers as they came, then the reason in headers of their own.",
        "contentType": "application/octet-stream",
        "headers": _ref("schemas", "DeadLetterHeaders"),
        "payload": {"description": "the bytes as they came; cut where `tagbus.value.bytes` is given"},
        "bindings": {"kafka": {"key": {"description": "as it came"}, "bindingVersion": KAFKA_BINDING}},
    }


def _release_messages() -> Json:
    name: Json = {"type": "string", "pattern": NAME, "description": "the release's name"}
    active: Json = {"const": ACTIVE}
    curve: Json = {
        "type": "string",
        "pattern": f"^{CALIBRATION}{NAME[1:-1]}/{PATH[1:]}",
        "description": "the release's name and the path whose scores it is fitted to",
    }
    parts: tuple[tuple[str, str, Json, Json], ...] = (
        ("ReleaseRecord", "A release that workers hold.", name, _ref("schemas", "ReleaseRecord")),
        ("ReleaseTombstone", "A release that is dropped.", name, {"type": "null"}),
        ("Active", "Which release is in force.", active, _ref("schemas", "Active")),
        ("Curve", "The calibration of a release's scores by a path.", curve, _ref("schemas", "Curve")),
        ("CurveTombstone", "A calibration that counts no longer.", curve, {"type": "null"}),
    )
    return {
        title: {
            "name": title,
            "title": title,
            "summary": summary,
            "contentType": "application/json",
            "payload": payload,
            "bindings": {"kafka": {"key": key, "bindingVersion": KAFKA_BINDING}},
        }
        for title, summary, key, payload in parts
    }


def _envelope(title: str) -> Json:
    data: Json = {"type": "object", "properties": {"data": _ref("schemas", title)}, "required": ["data"]}
    base64: Json = {
        "type": "object",
        "properties": {"data_base64": {"type": "string", "contentEncoding": "base64"}},
        "required": ["data_base64"],
    }
    return {"allOf": [_ref("schemas", "CloudEvent")], "oneOf": [data, base64]}


def _correlations() -> Json:
    return {
        "contentId": {"description": "the content that it is about", "location": "$message.payload#/id"},
        "tagId": {"description": "the tag that it is about", "location": "$message.payload#/id"},
        "segmentId": {"description": "the segment of knowledge that it is about", "location": "$message.payload#/id"},
    }


def _schemas() -> Json:
    models: tuple[type[BaseModel], ...] = (*MODELS.values(), ReleaseRecord, Active, Curve, Attributes)
    _, document = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    schemas: Json = dict(document["$defs"])
    schemas["CloudEvent"] = schemas.pop("Attributes")
    return schemas | {
        "SourceHeaders": _source_headers(),
        "DeadLetterHeaders": dead_letter_headers(),
        "CloudEventHeaders": _cloudevent_headers(),
        "StructuredHeaders": _structured_headers(),
    }


def _source_headers() -> Json:
    topic, partition, offset = SOURCE_HEADERS
    return {
        "title": "SourceHeaders",
        "type": "object",
        "description": "The record that it comes from.",
        "properties": {
            topic: text_schema("topic"),
            partition: number_schema("partition"),
            offset: number_schema("offset"),
        },
        "required": list(SOURCE_HEADERS),
    }


def _cloudevent_headers() -> Json:
    """Headers of a plain or a binary-mode record: all of the required attributes, or none."""
    fields = Attributes.model_fields
    properties: Json = {f"ce_{name}": text_schema(fields[name].description or name) for name in fields}
    del properties["ce_datacontenttype"]
    properties["content-type"] = text_schema("a JSON media type")
    required = [f"ce_{name}" for name, info in fields.items() if info.is_required()]
    return {
        "title": "CloudEventHeaders",
        "type": "object",
        "description": "None for plain JSON; the attributes of a CloudEvent in binary mode.",
        "properties": properties,
        "dependencies": {name: list[JsonValue](required) for name in required},
    }


def _structured_headers() -> Json:
    return {
        "title": "StructuredHeaders",
        "type": "object",
        "properties": {"content-type": {"type": "string", "pattern": f"^{STRUCTURED.replace('+', '[+]')}(;.*)?$"}},
        "required": ["content-type"],
    }


def _ref(kind: Literal["schemas", "messages", "correlationIds"], name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}
