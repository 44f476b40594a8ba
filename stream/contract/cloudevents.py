"""CloudEvents 1.0 over Kafka: detect the mode of a record and read its envelope.

Source: CloudEvents 1.0.2, the Kafka protocol binding (section 3, message mapping) and the JSON event format. Binary
mode has the attributes in `ce_` headers and the event in the value; structured mode has both in the value. The Kafka
binding has no batch mode.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from tagbus.stream.contract.field_errors import invalid, poison, undecodable
from tagbus.stream.contract.fields import Event, Time
from tagbus.stream.errors import InvalidEvent, shorten

Headers = Sequence[tuple[str, bytes | None]]
Mode = Literal["plain", "binary", "structured"]

STRUCTURED = "application/cloudevents+json"
REQUIRED = ("specversion", "id", "source", "type")

_PREFIX = "ce_"
_MARKS = frozenset(_PREFIX + name for name in REQUIRED)
_JSON_TYPE = re.compile(r"\s*(application|text)/([a-z0-9!#$&^_.-]+\+)?json\s*(;.*)?", re.IGNORECASE | re.DOTALL)


def _json_type(value: str) -> str:
    if not _JSON_TYPE.fullmatch(value):
        raise PydanticCustomError("not_json_type", "a JSON media type, for instance application/json")
    return value


Attribute = Annotated[str, StringConstraints(min_length=1)]
JsonType = Annotated[str, AfterValidator(_json_type)]


class Attributes(BaseModel):
    """The context attributes of a CloudEvent; extensions pass."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    specversion: Literal["1.0"] = Field(description="version of CloudEvents")
    id: Attribute = Field(description="of this event; with `source` unique. The content's id stands in the data")
    source: Attribute = Field(description="URI reference of the producer")
    type: Attribute = Field(description="kind of event, the producer's own word")
    time: Time | None = Field(None, description="when it happened (RFC 3339); a content without a time takes it")
    datacontenttype: JsonType | None = Field(None, description="a JSON media type; application/json if missing")


E = TypeVar("E", bound=Event)


class Envelope(Attributes, Generic[E]):
    """A whole CloudEvent in structured mode: the event as `data`, or its JSON in `data_base64`."""

    data: E | None = None
    data_base64: str | None = None

    @model_validator(mode="after")
    def _one_data(self) -> Self:
        if self.data is None and self.data_base64 is None:
            raise PydanticCustomError("no_data", "an object; a tombstone is a record without a value")
        if self.data is not None and self.data_base64 is not None:
            raise PydanticCustomError("data_twice", "either `data` or `data_base64`")
        return self


class _Marks(BaseModel):
    """The fields that every CloudEvent has in structured mode."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    specversion: str
    id: str
    source: str
    type: str


# In binary mode `datacontenttype` is carried in the header `content-type`.
_READ = frozenset(_PREFIX + name for name in Attributes.model_fields if name != "datacontenttype")


def mode(headers: Headers) -> Mode:
    """The mode of a record: structured by its content type, binary if it has a required attribute as a header.

    Raises Undecodable for the batch format and for envelopes that are not JSON.
    """
    if not headers:
        return "plain"
    raw = _content_type(headers) or b""
    content_type = raw.decode(errors="replace").partition(";")[0].strip().lower()
    if content_type == STRUCTURED:
        return "structured"
    if content_type.startswith("application/cloudevents-batch"):
        raise undecodable("content-type", shorten(raw), f"one event a record ({STRUCTURED}): Kafka has no batch mode")
    if content_type.startswith("application/cloudevents"):
        raise undecodable("content-type", shorten(raw), STRUCTURED)
    return "binary" if any(name.lower() in _MARKS for name, _ in headers) else "plain"


def unmarked(value: bytes) -> InvalidEvent | None:
    """The error for a value that is a whole CloudEvent without a header that says so; None for any other value."""
    try:
        _Marks.model_validate_json(value)
    except ValidationError:
        return None
    return invalid(
        "value", "a CloudEvent", f"the header `content-type: {STRUCTURED}` beside it, or in a file its `data` alone"
    )


def header_attributes(headers: Headers) -> Attributes:
    """The attributes of a binary-mode record. Raises InvalidEvent that names the wrong header."""
    content_type = _content_type(headers)
    if content_type is not None and not _JSON_TYPE.fullmatch(content_type.decode(errors="replace")):
        raise invalid("content-type", shorten(content_type), "a JSON media type, for instance application/json")
    found: dict[str, str] = {}
    for name, raw in headers:
        attribute = name.lower().removeprefix(_PREFIX)
        if raw is not None and name.lower() in _READ:
            found[attribute] = _text(name, raw)
    try:
        return Attributes.model_validate_strings(found)
    except ValidationError as error:
        raise poison(error, Attributes, _PREFIX) from None


def _content_type(headers: Headers) -> bytes | None:
    """The last `content-type` header, case-insensitive: some producers write it as HTTP does."""
    for name, raw in reversed(headers):
        if raw is not None and name.lower() == "content-type":
            return raw
    return None


def _text(name: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise invalid(name, shorten(raw), "UTF-8") from None
