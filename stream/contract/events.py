"""The pydantic models of every topic: the words of the design, as producers and recommenders see them.

Unknown fields pass, so that old and new workers share a group. Types are strict: a number is no id.
"""

import re
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    JsonValue,
    Strict,
    StringConstraints,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError, from_json, to_json

ID_CHARS = 256
NAME_CHARS = 512
TITLE_CHARS = 4_096
TEXT_CHARS = 500_000
LIST_ITEMS = 1_000
METADATA_BYTES = 16_384

# pydantic alone also takes Unix times, a space or `_` for the T, and times without an offset.
RFC3339 = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})$"

_MATCH = re.compile(RFC3339).match


def _rfc3339(value: object) -> object:
    if isinstance(value, datetime) or (isinstance(value, str) and _MATCH(value)):
        return value
    raise PydanticCustomError("not_rfc3339", "an RFC 3339 time with its offset, for instance 2026-01-31T09:30:00Z")


def _bounded(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if not value:
        return value
    text = to_json(value, inf_nan_mode="constants")
    if len(text) > METADATA_BYTES:
        raise PydanticCustomError("metadata_too_large", "an object of at most 16384 bytes of JSON")
    try:
        # pydantic reads NaN, and 1e400 as infinity: neither could be written as JSON again.
        from_json(text, allow_inf_nan=False)
    except ValueError:
        raise PydanticCustomError("metadata_not_finite", "finite numbers") from None
    return value


Id = Annotated[str, StringConstraints(min_length=1, max_length=ID_CHARS)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=NAME_CHARS)]
# FailFast: a list of a million wrong items would otherwise take seconds and a million errors.
Ids = Annotated[tuple[Id, ...], Field(max_length=LIST_ITEMS), FailFast()]
Names = Annotated[tuple[Name, ...], Field(max_length=LIST_ITEMS), FailFast()]
# Strict(False): after a validator of ours pydantic no longer knows that the text came from JSON; the check is strict.
Time = Annotated[AwareDatetime, Strict(False), BeforeValidator(_rfc3339), Field(json_schema_extra={"pattern": RFC3339})]
Metadata = Annotated[dict[str, JsonValue], AfterValidator(_bounded)]
Source = Literal["people", "machine"]


class Event(BaseModel):
    """What every model of the contract shares."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


_NOT_BLANK: dict[str, JsonDict] = {
    field: {"required": [field], "properties": {field: {"pattern": r"\S"}}} for field in ("title", "text")
}


class Content(Event):
    """What is tagged. A null value on the topic means that the content was withdrawn."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [_NOT_BLANK["title"], _NOT_BLANK["text"]]})

    id: Id = Field(description="unique and stable; also the record's key")
    title: str = Field("", max_length=TITLE_CHARS)
    text: str = Field("", max_length=TEXT_CHARS, description="plain text; title and text may not both be empty")
    language: str | None = Field(None, max_length=35, description="BCP 47, for instance `en`")
    time: Time | None = Field(None, description="when it was published or changed at the source (RFC 3339)")
    version: int | None = Field(
        None, ge=0, lt=2**63, description="grows with each change; an older one never replaces a newer one"
    )
    # A factory: of a default that can change pydantic makes a deep copy for each content, 0.8 µs of 2.
    metadata: Metadata = Field(
        default_factory=dict,
        description="the producer's own, at most 16,384 bytes of JSON",
        json_schema_extra={"default": {}},
    )

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.title.strip() and not self.text.strip():
            raise PydanticCustomError("empty_content", "a title or a text that is not empty")
        return self


class Tag(Event):
    """One entry of the taxonomy. A null value on the topic means that the tag is retired."""

    id: Id = Field(description="unique and stable; also the record's key")
    name: Name
    description: str = Field("", max_length=TITLE_CHARS)
    aliases: Names = ()
    parents: Ids = Field((), description="ids of broader tags")


class Exemplar(Event):
    """A content whose tags are known. The record's key is `id/source`, so that people and machine never erase
    each other."""

    id: Id = Field(description="the content's id")
    source: Source = "people"
    title: str = Field("", max_length=TITLE_CHARS)
    text: str = Field("", max_length=TEXT_CHARS)
    accepted: Ids = Field((), description="ids of tags that are right")
    rejected: Ids = Field((), description="ids of tags that are wrong")
    time: Time | None = Field(None, description="when it was decided (RFC 3339)")

    @property
    def key(self) -> str:
        """The key of its record."""
        return exemplar_key(self.id, self.source)


def exemplar_key(content_id: str, source: Source) -> str:
    """The key of an exemplar's record: one writer a source."""
    return f"{content_id}/{source}"


class Neighbour(Event):
    """An exemplar that voted for a tag."""

    id: str = Field(description="content id of the exemplar")
    source: Source
    similarity: float = Field(description="cosine of the two contents, -1 to 1")


class Evidence(Event):
    """Why a tag was found."""

    similarity: float | None = Field(None, description="cosine of content and tag, -1 to 1, if found directly (C2T)")
    votes: int = Field(0, description="exemplars that carry the tag among the similar ones (C2C2T)")
    neighbours: Annotated[tuple[Neighbour, ...], FailFast()] = Field(
        (), description="the most similar of those that voted"
    )
    heads: float | None = Field(None, description="probability by the classifier heads, 0 to 1, if they found it")
    labeltree: float | None = Field(None, description="probability by the label trees, 0 to 1, if they found it")
    second_encoder: float | None = Field(
        None, description="share of the votes of a second encoder's neighbours, 0 to 1, if they carry it"
    )
    literal: str | None = Field(None, description="the tag's name or alias that stands in the content, if it does")
    decided: bool = Field(False, description="people accepted the tag for this very content")


class ScoredTag(Event):
    """A tag that was found, how well, how surely and why."""

    id: Id
    name: Name
    score: float = Field(
        description="the stage's: recall, share of the softmax over memory, 0 to 1 (RAE-XMC); "
        "fusion, sum of reciprocal ranks; rank, the ranker's"
    )
    confidence: float = Field(description="calibrated probability that the tag is right, between 0 and 1")
    stage: Literal["recall", "fusion", "rank", "people"] = Field(description="what gave score and confidence")
    evidence: Evidence


class Versions(Event):
    """Which versions of everything gave the numbers."""

    release: str = Field(description="name of the release: encoder, tokenizer, dimension, thresholds")
    calibration: str = Field(description="name of the calibration, or `none`")
    heads: str | None = Field(None, description="name of the classifier heads, if they were on")
    labeltree: str | None = Field(None, description="name of the label trees, if they were on")
    second_encoder: str | None = Field(None, description="name of the second encoder, if it was on")
    ranker: str | None = Field(None, description="name of the ranker, if it was on")
    cross_encoder: str | None = Field(None, description="name of the cross-encoder that the ranker asked, if it was on")
    taxonomy: dict[str, int] = Field(description="applied offset of each partition of `tags`")


class TaggedContent(Event):
    """The product: a content's tags, best first. A null value means that the content was withdrawn."""

    id: Id = Field(description="the content's id; also the record's key")
    tags: Annotated[tuple[ScoredTag, ...], FailFast()]
    versions: Versions
    path: Annotated[tuple[str, ...], FailFast()] = Field(description="the stages that it went through")
    degraded: bool = Field(False, description="a stage was skipped because its service was down")
    time: Time | None = Field(None, description="the content's own time, as it came")


class DeadLetter(Event):
    """Why an event was set aside. It travels in the headers; the value is the event's own, byte for byte."""

    topic: str = Field(min_length=1, description="topic of the event")
    partition: int = Field(ge=0, description="partition of the event")
    offset: int = Field(ge=0, description="offset of the event")
    exception: str = Field(description="class of the error")
    message: str = Field(description="field, value (shortened) and what would be right", max_length=TITLE_CHARS)
    stage: str = Field(description="the step that refused it")
    attempts: int = Field(1, ge=1, description="how often it was tried")
    replays: int = Field(0, ge=0, description="how often it was sent back from the dead letters before")
    value_bytes: int | None = Field(None, description="length of the value before it was cut; only if it was")
    value_sha256: str | None = Field(None, description="hash of the whole value; only if it was cut")
