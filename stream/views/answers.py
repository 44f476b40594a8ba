"""The API's answers, computed from rows by pure functions.

A page begins after the last item of the previous one, which its `next` names, so that concurrent changes never cause
skipped or repeated items.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json, to_json

from tagbus.stream.config import ViewsSettings
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.views.contents import Latest
from tagbus.stream.views.tags import TagRow

PAGE: Final = 20
MOST: Final = 1_000
# The limit of `next`: a number and an id of 256 characters, escaped.
CURSOR_CHARS: Final = 4_000
Order = Literal["newest", "confidence"]
Key = tuple[float, str]
T = TypeVar("T")


class Answer(BaseModel):
    """The body of an answer."""

    model_config = ConfigDict(frozen=True)


class TagOfContent(Answer):
    """A tag of a content."""

    id: str = Field(description="the tag's")
    name: str = Field(description="the tag's, in the result")
    confidence: float = Field(description="calibrated probability that the tag is right")


class ContentAnswer(Answer):
    """The latest tags of a content."""

    id: str = Field(description="the content's")
    tags: tuple[TagOfContent, ...] = Field(description="best first; may be empty")
    release: str = Field(description="that tagged it")
    time: datetime = Field(description="the content's own, or that of its first result")
    tagged: datetime = Field(description="time of the result's record")


class TagAnswer(Answer):
    """A tag."""

    id: str = Field(description="the tag's")
    name: str = Field(description="the tag's, in the last result that has it")
    contents: int = Field(description="number of contents that have it now")


class ContentOfTag(Answer):
    """A content that has a tag."""

    id: str = Field(description="the content's")
    confidence: float = Field(description="of the tag for this content")
    time: datetime = Field(description="the content's own, or that of its first result")


class ContentsPage(Answer):
    """Contents that have a tag."""

    items: tuple[ContentOfTag, ...]
    next: str | None = Field(description="the parameter `after` of the next page; null: this is the last one")
    whole: bool = Field(description="false: contents beyond views.contents were left out, and are not in the list")


class Window(Answer):
    """How many contents of a tag have their time in a window that hops by views.step_seconds."""

    start: datetime = Field(description="start of the window, inclusive")
    end: datetime = Field(description="end of the window, exclusive")
    contents: int = Field(description="in this window")
    previous: int = Field(description="in the window of the same length before it")
    trend: float = Field(description="(contents - previous) / max(previous, 1)")
    complete: bool = Field(description="false: it has not ended yet")


class WindowsPage(Answer):
    """Windows of a tag, the newest first."""

    items: tuple[Window, ...]
    next: str | None = Field(description="the parameter `after` of the next page; null: this is the last one")


class OtherTag(Answer):
    """A tag that occurs together with another."""

    id: str = Field(description="the other tag's")
    contents: int = Field(description="how many have both")


class TogetherPage(Answer):
    """Tags of the contents that have a tag."""

    items: tuple[OtherTag, ...]
    next: str | None = Field(description="the parameter `after` of the next page; null: this is the last one")
    whole: bool = Field(description="false: tags beyond views.together were left out, and counts may be too low")


def content(key: str, row: Latest) -> ContentAnswer:
    """Its latest tags."""
    tags = tuple(TagOfContent(id=one.id, name=one.name, confidence=one.confidence) for one in row.tags)
    return ContentAnswer(id=key, tags=tags, release=row.release, time=_time(row.time), tagged=_time(row.tagged))


def tag(key: str, row: TagRow) -> TagAnswer:
    """Its name and count."""
    return TagAnswer(id=key, name=row.name, contents=row.count)


def contents(row: TagRow, order: Order, most: int, limit: int, after: str | None) -> ContentsPage:
    """A page of its contents; the list has at most `most`. Raises UserError for a wrong `after`."""
    ids = row.newest(most) if order == "newest" else row.surest(most)
    place = 1 if order == "newest" else 0
    page, following = _page(ids, lambda one: (-row.contents[one][place], one), limit, after)
    items = tuple(
        ContentOfTag(id=one, confidence=row.contents[one][0], time=_time(row.contents[one][1])) for one in page
    )
    return ContentsPage(items=items, next=following, whole=row.contents_whole and len(row.contents) <= most)


def together(row: TagRow, limit: int, after: str | None) -> TogetherPage:
    """A page of the tags that its contents have too, most frequent first. Raises UserError for a wrong `after`."""
    ids = sorted(row.together, key=lambda one: (-row.together[one], one))
    page, following = _page(ids, lambda one: (-row.together[one], one), limit, after)
    items = tuple(OtherTag(id=one, contents=row.together[one]) for one in page)
    return TogetherPage(items=items, next=following, whole=row.together_whole)


def windows(
    row: TagRow, settings: ViewsSettings, seconds: int, now: float, limit: int, after: str | None
) -> WindowsPage:
    """A page of windows of one length; `now` in seconds. Raises UserError for a wrong length or `after`."""
    if seconds not in settings.window_seconds:
        right = ", ".join(map(str, settings.window_seconds))
        raise UserError(f"seconds: {seconds} is wrong, expected {right}")
    step = settings.step_seconds
    last = int(now // step * step + step)
    # As far back as the counts of the previous window are kept.
    ends = range(last, last - settings.kept_seconds + 2 * seconds, -step)
    page, following = _page(ends, lambda end: (-end, ""), limit, after)
    return WindowsPage(items=tuple(_window(row, end - seconds, end, now) for end in page), next=following)


def _window(row: TagRow, start: int, end: int, now: float) -> Window:
    counted = _counted(row, start, end)
    previous = _counted(row, start - (end - start), start)
    return Window(
        start=_time(start * 1000),
        end=_time(end * 1000),
        contents=counted,
        previous=previous,
        trend=(counted - previous) / max(previous, 1),
        complete=end <= now,
    )


def _counted(row: TagRow, start: int, end: int) -> int:
    return sum(count for step, count in row.steps.items() if start <= step < end)


def _page(ids: Sequence[T], key: Callable[[T], Key], limit: int, after: str | None) -> tuple[Sequence[T], str | None]:
    """The items after a cursor, and the cursor of the next page. `ids` ascend by `key`."""
    if after is not None:
        last = _cursor(after)
        ids = [one for one in ids if key(one) > last]
    page = ids[:limit]
    return page, _named(key(page[-1])) if len(ids) > limit else None


def _named(key: Key) -> str:
    return base64.urlsafe_b64encode(to_json(key)).decode()


def _cursor(text: str) -> Key:
    try:
        if len(text) > CURSOR_CHARS:
            raise ValueError
        match from_json(base64.urlsafe_b64decode(text)):
            case [int() | float() as place, str(one)]:
                return place, one
    except (ValueError, binascii.Error):
        pass
    raise UserError(f"after: {shorten(text)} is wrong, expected the `next` of the previous page")


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
