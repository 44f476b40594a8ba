"""JSON Schema 2020-12 of every topic's values, generated from the models."""

from datetime import UTC, datetime

from pydantic import JsonValue, TypeAdapter

from tagbus.stream.contract.codec import DEAD_LETTER_HEADERS
from tagbus.stream.contract.decision import Decision, ResultPlace, ShownTag
from tagbus.stream.contract.events import (
    Content,
    DeadLetter,
    Evidence,
    Exemplar,
    Knowledge,
    Neighbour,
    ScoredTag,
    Tag,
    TaggedContent,
    Versions,
)
from tagbus.stream.contract.fields import Event
from tagbus.stream.contract.release import Active, Curve, ReleaseRecord
from tagbus.stream.errors import UserError, shorten

Json = dict[str, JsonValue]

# The version of the contract, not of the package: a new optional field increments the second number, a description the
# third. Changes that an older reader would reject or misread are no longer made. tests/contract/fixtures holds schemas
# and records of every version, which must decode forever.
CONTRACT_VERSION = "2.1.0"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

MODELS: dict[str, type[Event]] = {
    "content": Content,
    "tags": Tag,
    "exemplars": Exemplar,
    "knowledge": Knowledge,
    "tagged": TaggedContent,
    "feedback": Decision,
}
DEAD_LETTERS = "content.dlq"
RELEASES = "releases"

EXAMPLES: dict[str, Event] = {
    "content": Content(id="article-17", title="Bees in the city", text="Beekeepers on roofs.", language="en"),
    "tags": Tag(id="p1234", name="urban beekeeping", aliases=("city bees",), parents=("p1000",)),
    "exemplars": Exemplar(id="article-3", title="Honey from the roof", accepted=("p1234",), rejected=("p77",)),
    "knowledge": Knowledge(
        id="urban-beekeeping",
        kind="definition",
        title="Urban beekeeping",
        text="The keeping of honey bees in towns.",
    ),
    "tagged": TaggedContent(
        id="article-17",
        tags=(
            ScoredTag(
                id="p1234",
                name="urban beekeeping",
                score=0.41,
                confidence=0.87,
                stage="recall",
                evidence=Evidence(
                    similarity=0.62, votes=1, neighbours=(Neighbour(id="article-3", source="people", similarity=0.71),)
                ),
            ),
        ),
        versions=Versions(release="minilm-1", calibration="none", taxonomy={"0": 2417}),
        path=("recall",),
    ),
    "feedback": Decision(
        id="article-17",
        decision="d-501",
        who="editor-3",
        role="editor",
        time=datetime(2026, 1, 31, 9, 45, tzinfo=UTC),
        mode="review",
        shown=(ShownTag(tag="p1234", rank=1, score=0.41, confidence=0.87, stage="recall"),),
        result=ResultPlace(topic="tagged", partition=3, offset=2417),
        versions=Versions(release="minilm-1", calibration="none", taxonomy={"0": 2417}),
        path=("recall",),
        machine_visible=True,
        accepted=("p1234",),
        title="Bees in the city",
        text="Beekeepers on roofs.",
    ),
}


def json_schema(topic: str) -> Json:
    """The JSON Schema of a topic's value; for `content.dlq`, whose values are arbitrary bytes, that of its headers as
    text.

    Raises UserError for an unknown topic.
    """
    if topic == DEAD_LETTERS:
        return {"$schema": DIALECT, **dead_letter_headers()}
    if topic == RELEASES:
        values = TypeAdapter[Event](ReleaseRecord | Active | Curve)
        return {"$schema": DIALECT, "title": "Release", **values.json_schema()}
    if topic not in MODELS:
        known = ", ".join((*MODELS, DEAD_LETTERS, RELEASES))
        raise UserError(f"{shorten(topic)} is not a topic of the contract; they are {known}")
    return {"$schema": DIALECT, **MODELS[topic].model_json_schema()}


def dead_letter_headers() -> Json:
    """The schema of dead-letter headers. Every header is text: numbers are decimal digits."""
    properties: Json = {}
    for field, name in DEAD_LETTER_HEADERS.items():
        info = DeadLetter.model_fields[field]
        describe = text_schema if info.annotation in {str, str | None} else number_schema
        properties[name] = describe(info.description or field)
    required = [DEAD_LETTER_HEADERS[field] for field, info in DeadLetter.model_fields.items() if info.is_required()]
    return {
        "title": "DeadLetterHeaders",
        "type": "object",
        "description": (DeadLetter.__doc__ or "").strip(),
        "properties": properties,
        "required": list[JsonValue](required),
    }


def text_schema(description: str) -> Json:
    return {"type": "string", "description": description}


def number_schema(description: str) -> Json:
    return {"type": "string", "pattern": "^[0-9]+$", "description": f"{description}, as text"}
