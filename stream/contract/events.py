"""The pydantic models of every topic: the words of the design, as producers and recommenders see them.

Unknown fields pass, so that old and new workers share a group. Types are strict: a number is no id.
"""

from typing import Annotated, Self

from pydantic import ConfigDict, FailFast, Field, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from tagbus.stream.contract.fields import (
    LANGUAGE_CHARS,
    TEXT_CHARS,
    TITLE_CHARS,
    Event,
    Id,
    Ids,
    Metadata,
    Name,
    Names,
    NamesByLanguage,
    Scopes,
    Shown,
    ShownName,
    ShownNamesByLanguage,
    Source,
    Time,
    Word,
    blank,
)

_NOT_BLANK: dict[str, JsonDict] = {
    field: {"required": [field], "properties": {field: {"pattern": r"\S"}}} for field in ("title", "text")
}
_EMPTY: JsonDict = {"default": {}}
# Mutable defaults come from factories: pydantic deep-copies a given default for each event, 0.8 µs.


def no_text() -> PydanticCustomError:
    """The error of a title and a text that show nothing."""
    return PydanticCustomError("empty_content", "a title or a text that is not empty")


class Content(Event):
    """What is tagged. A null value on the topic means that the content was withdrawn."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [_NOT_BLANK["title"], _NOT_BLANK["text"]]})

    id: Id = Field(description="unique and stable; also the record's key")
    title: str = Field("", max_length=TITLE_CHARS, description="plain text")
    text: str = Field("", max_length=TEXT_CHARS, description="plain text; title and text may not both be empty")
    language: str | None = Field(None, max_length=LANGUAGE_CHARS, description="BCP 47, for instance `en`")
    time: Time | None = Field(None, description="when it was published or changed at the source (RFC 3339)")
    version: int | None = Field(
        None, ge=0, lt=2**63, description="grows with each change; an older one never replaces a newer one"
    )
    metadata: Metadata = Field(
        default_factory=dict,
        description="the producer's own, at most 16,384 bytes of JSON",
        json_schema_extra=_EMPTY,
    )
    scopes: Scopes = Field(
        (), description="tenants, content types or languages: it sees what shares one of them or has none"
    )

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if blank(self.title) and blank(self.text):
            raise no_text()
        return self


class Tag(Event):
    """One entry of the taxonomy. A null value on the topic means that the tag is retired; so does one with
    `replaced_by`, which says where its exemplars count from now on."""

    id: Id = Field(description="unique and stable; also the record's key")
    name: ShownName = Field(description="what results call it")
    description: str = Field("", max_length=TITLE_CHARS, description="what it is for, in a sentence or two")
    aliases: Names = Field((), description="other names for the same thing")
    parents: Ids = Field((), description="ids of broader tags")
    names: ShownNamesByLanguage = Field(
        default_factory=dict, description="the name in other languages, by BCP 47 tag", json_schema_extra=_EMPTY
    )
    scopes: Scopes = Field((), description="only contents that share one of them get this tag; none: all contents do")
    replaced_by: Ids = Field(
        (), description="ids of the tags in its place: it is retired, and what was decided for it holds for them"
    )

    @model_validator(mode="after")
    def _not_replaced_by_itself(self) -> Self:
        if self.id in self.replaced_by:
            raise PydanticCustomError("replaced_by_itself", "ids of other tags")
        return self


class Exemplar(Event):
    """A content whose tags are known. The record's key is `id/source`, so that people and machine never erase
    each other."""

    id: Id = Field(description="the content's id")
    source: Source = Field("people", description="who decided")
    title: str = Field("", max_length=TITLE_CHARS, description="the content's")
    text: str = Field("", max_length=TEXT_CHARS, description="the content's, plain text")
    accepted: Ids = Field((), description="ids of tags that are right")
    rejected: Ids = Field((), description="ids of tags that are wrong")
    time: Time | None = Field(None, description="when it was decided (RFC 3339)")
    scopes: Scopes = Field((), description="only contents that share one of them see it; none: all contents do")

    @model_validator(mode="after")
    def _not_blank(self) -> Self:
        # Without any text it is a decision about that one content.
        if (self.title or self.text) and blank(self.title) and blank(self.text):
            raise no_text()
        return self

    @property
    def key(self) -> str:
        """The key of its record."""
        return exemplar_key(self.id, self.source)


def exemplar_key(content_id: str, source: Source) -> str:
    """The key of an exemplar's record: one writer per source."""
    return f"{content_id}/{source}"


class Knowledge(Event):
    """A segment of background knowledge for prompts. A null value on the topic means that it is withdrawn."""

    id: Id = Field(description="unique and stable; also the record's key")
    kind: Word = Field(description="`definition`, `rule` or `news`; others pass")
    title: str = Field("", max_length=TITLE_CHARS, description="what it is about")
    text: Annotated[str, Shown] = Field(min_length=1, max_length=TEXT_CHARS, description="plain text, some sentences")
    valid_from: Time | None = Field(None, description="not used before this time (RFC 3339); null: from the start")
    valid_until: Time | None = Field(None, description="not used from this time on (RFC 3339); null: without end")
    scopes: Scopes = Field((), description="only contents that share one of them see it; none: all contents do")

    @model_validator(mode="after")
    def _begins_first(self) -> Self:
        if self.valid_from is not None and self.valid_until is not None and self.valid_until <= self.valid_from:
            raise PydanticCustomError("never_valid", "a time after `valid_from`")
        return self


class Neighbour(Event):
    """An exemplar that voted for a tag."""

    id: str = Field(description="content id of the exemplar")
    source: Source = Field(description="who decided")
    similarity: float = Field(description="cosine of the two contents, -1 to 1")


class Passage(Event):
    """The part of a content that speaks for a tag. Offsets count Unicode characters."""

    field: str = Field(description="`title` or `text` of the content")
    start: int = Field(ge=0, description="offset of its first character")
    end: int = Field(ge=0, description="offset after its last character")
    text: str = Field(description="the characters from start to end")


class Evidence(Event):
    """Why a tag was found."""

    similarity: float | None = Field(None, description="cosine of content and tag, -1 to 1, if found directly (C2T)")
    votes: int = Field(0, description="exemplars that carry the tag among the similar ones (C2C2T)")
    neighbours: Annotated[tuple[Neighbour, ...], FailFast()] = Field(
        (), description="the most similar of those that voted"
    )
    scores: dict[str, float] = Field(
        default_factory=dict,
        description="by component, what it gave the tag: a probability or a share of votes, 0 to 1",
        json_schema_extra=_EMPTY,
    )
    matched: dict[str, str] = Field(
        default_factory=dict,
        description="by component, the name or the words by which it found the tag in the content",
        json_schema_extra=_EMPTY,
    )
    unjudged: float | None = Field(
        None, description="score of the stages before the judge, where its probability joined it"
    )
    passage: Passage | None = Field(
        None, description="the part of the content that speaks for the tag, if one is named"
    )
    decided: bool = Field(False, description="people accepted the tag for this very content")
    broader: Annotated[tuple[str, ...], FailFast()] = Field(
        (), description="ids of broader tags that were among the content's best too, nearest first"
    )
    narrower: Annotated[tuple[str, ...], FailFast()] = Field(
        (), description="ids of the content's tags that it was added for, being broader than they"
    )


class ScoredTag(Event):
    """A tag that was found, how well, how surely and why."""

    id: Id = Field(description="the tag's")
    name: Name = Field(description="the tag's")
    names: NamesByLanguage = Field(
        default_factory=dict, description="the tag's, by language (BCP 47)", json_schema_extra=_EMPTY
    )
    score: float = Field(
        description="the stage's: recall, share of the softmax over memory, 0 to 1 (RAE-XMC); "
        "fusion, sum of reciprocal ranks; rank, the ranker's"
    )
    confidence: float = Field(description="calibrated probability that the tag is right, between 0 and 1")
    stage: str = Field(
        description="what gave score and confidence: `recall`, `fusion`, `rank`, `people`, or `hierarchy` for a tag "
        "that was added for a narrower one; more may come"
    )
    evidence: Evidence = Field(description="why")


class Versions(Event):
    """Which versions of everything gave the numbers."""

    release: str = Field(description="name of the release: encoder, tokenizer, dimension, thresholds")
    taxonomy: dict[str, int] = Field(description="applied offset of each partition of `tags`")
    components: dict[str, str] = Field(
        default_factory=dict,
        description="version of each component that was on, by its name",
        json_schema_extra=_EMPTY,
    )
    calibration: str = Field(description="name of the calibration, or `none`")
    prompt: str | None = Field(None, description="name of the prompt, if a language model was asked")
    llm: str | None = Field(None, description="name of the language model, if one was asked")
    backend: str | None = Field(
        None, description="how it was asked: `decision_api`, `yesno`, or `stated`, whose numbers are the least reliable"
    )


class Degraded(Event):
    """A stage that was skipped for this content, and why."""

    stage: str = Field(description="name of the stage")
    reason: str = Field(description="a short word, for instance `dependency_down`")


class Usage(Event):
    """What a content cost at a language model."""

    calls: int = Field(ge=0, description="requests")
    tokens_in: int = Field(ge=0, description="tokens of the prompts")
    tokens_out: int = Field(ge=0, description="tokens of the answers")
    cost: float | None = Field(None, ge=0, description="in `currency`; null where the model has no price")
    currency: str | None = Field(None, description="ISO 4217, for instance `USD`; null where cost is")


class TaggedContent(Event):
    """The product: a content's tags, best first. A null value means that the content was withdrawn."""

    id: Id = Field(description="the content's id; also the record's key")
    tags: Annotated[tuple[ScoredTag, ...], FailFast()] = Field(description="best first; may be empty")
    versions: Versions = Field(description="by which it was tagged")
    path: Annotated[tuple[str, ...], FailFast()] = Field(description="the stages that it went through, in order")
    degraded: Annotated[tuple[Degraded, ...], FailFast()] = Field(
        (), description="the stages that were skipped because something was down or used up"
    )
    usage: Usage | None = Field(None, description="what it cost; null where no language model was asked")
    scopes: Scopes = Field((), description="the content's own scopes, as they came")
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
