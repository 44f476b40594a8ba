"""The event of the topic `feedback`: what a person decided about the tags of one content.

The topic is a log. Only what a decision names counts: a tag that it does not mention is not rejected.
"""

from typing import Annotated, Literal, Self

from pydantic import FailFast, Field, model_validator
from pydantic_core import PydanticCustomError

from tagbus.stream.contract.events import Versions, no_text
from tagbus.stream.contract.fields import (
    LANGUAGE_CHARS,
    LIST_ITEMS,
    NAME_CHARS,
    TEXT_CHARS,
    TITLE_CHARS,
    Event,
    Id,
    Ids,
    Name,
    Scopes,
    Time,
    Word,
    blank,
)

Mode = Literal["review", "pool", "blind", "adjudicate", "bulk", "api"]


class ShownTag(Event):
    """A tag as the person saw it, or would have seen it."""

    tag: Id = Field(description="the tag's id")
    rank: int = Field(ge=1, description="its place in the list; 1 is the first")
    score: float | None = Field(None, description="the result's score, if it had one")
    confidence: float | None = Field(None, ge=0, le=1, description="the result's confidence, if it had one")
    propensity: float = Field(1.0, gt=0, le=1, description="probability that it was shown")
    policy: Word = Field("top", description="why it was shown: `top`, `explore` or `blind`; others pass")
    stage: str = Field("", description="what gave them, as in the result: `people` where people had accepted it before")


class JudgedTag(Event):
    """A tag of a result that the judge was asked about, or might have been: what its weight is fitted to."""

    tag: Id = Field(description="the tag's id")
    score: float = Field(description="of the stages before the judge")
    judge: float | None = Field(None, ge=0, le=1, description="the judge's probability; null: it gave none")


class ResultPlace(Event):
    """A record on `tagged`."""

    topic: Name = Field(description="its topic")
    partition: int = Field(ge=0, description="its partition")
    offset: int = Field(ge=0, description="its offset")


class Decision(Event):
    """What a person decided about the tags of one content. A null value means that the content was withdrawn, and all
    decisions on it with it."""

    id: Id = Field(description="the content's id; also the record's key")
    decision: Id = Field(description="unique id of this decision: sent twice, it counts once")
    supersedes: Ids = Field((), description="ids of earlier decisions on this content that count no longer")
    replaces: bool = Field(
        False, description="whether whatever else the person decided on this content before counts no longer"
    )
    who: Id = Field(description="the person, by a name that stays")
    role: Annotated[str, Field(max_length=NAME_CHARS)] = Field(
        "", description="the person's role, for instance `editor`"
    )
    time: Time = Field(description="when it was decided (RFC 3339)")
    mode: Mode = Field(
        description="`review` of a result, `pool` of contents for a tag, `blind` without the machine's judgement, "
        "`adjudicate` between people, `bulk` for many at once, `api` by a program for a person"
    )
    shown: Annotated[tuple[ShownTag, ...], Field(max_length=LIST_ITEMS), FailFast()] = Field(
        (), description="the tags that were shown"
    )
    judged: Annotated[tuple[JudgedTag, ...], Field(max_length=LIST_ITEMS), FailFast()] = Field(
        (), description="all tags of the result, shown or not, where the judge was asked about it"
    )
    result: ResultPlace | None = Field(None, description="the result that they are from")
    versions: Versions | None = Field(None, description="the result's")
    path: Annotated[tuple[str, ...], Field(max_length=LIST_ITEMS), FailFast()] = Field((), description="the result's")
    machine_visible: bool = Field(False, description="whether scores or confidences were visible")
    accepted: Ids = Field((), description="ids of tags that are right")
    rejected: Ids = Field((), description="ids of tags that are wrong")
    unsure: Ids = Field((), description="ids of tags that the person left open")
    title: str = Field("", max_length=TITLE_CHARS, description="the content's")
    text: str = Field("", max_length=TEXT_CHARS, description="the content's, plain text")
    language: str | None = Field(None, max_length=LANGUAGE_CHARS, description="the content's, BCP 47")
    scopes: Scopes = Field((), description="the content's")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.has_text and blank(self.title) and blank(self.text):
            raise no_text()
        named = (*self.accepted, *self.rejected, *self.unsure)
        if len(set(named)) < len(named):
            raise PydanticCustomError("decided_twice", "each tag once: accepted, rejected or unsure")
        return self

    @property
    def has_text(self) -> bool:
        """Whether it carries the content's title or text."""
        return bool(self.title or self.text)

    @property
    def decides(self) -> bool:
        """Whether it names a tag."""
        return bool(self.accepted or self.rejected or self.unsure)
