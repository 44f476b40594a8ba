"""The row of a content: its latest tags and earlier versions, so that each change can be sent again.

Faust reads a record of `tagged` again when a worker dies before its commit. By then the row may be ahead, and some of
the changes may be applied to tags already. So a row keeps its versions since the last one whose changes are known to be
delivered: whichever of them is read again, the same change is sent, and the tags recognise it by partition and offset.
"""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from tagbus.stream.contract.events import TaggedContent

# Before the first version.
NOWHERE = -1


class Row(BaseModel):
    """A value in tables and the topic of changes, as JSON."""

    model_config = ConfigDict(frozen=True)

    def to_json(self) -> bytes:
        """The stored form."""
        return self.model_dump_json().encode()


class Mark(Row):
    """A tag of a content."""

    id: str
    name: str
    confidence: float


class Latest(Row):
    """The tags of a content, best first. `time`: the one that counts in windows; `tagged`: of the record; both in
    ms."""

    tags: tuple[Mark, ...]
    release: str
    time: int
    tagged: int


class Version(Row):
    """The result on `tagged` at an offset; null: the content was withdrawn."""

    offset: int
    latest: Latest | None

    @property
    def size(self) -> int:
        """Its bytes in a row."""
        return len(self.to_json())


class ContentRow(Row):
    """Versions, the oldest first. The changes of the first are delivered."""

    versions: tuple[Version, ...] = (Version(offset=NOWHERE, latest=None),)

    @property
    def latest(self) -> Latest | None:
        """Its current tags."""
        return self.versions[-1].latest

    @property
    def size(self) -> int:
        """Its bytes in the changelog, about."""
        return sum(version.size for version in self.versions)


class ContentEntry(Row):
    """A content's entry under a tag. `together`: the content's other tags."""

    confidence: float
    time: int
    together: tuple[str, ...]


class Change(Row):
    """The change to one tag by a record of `tagged`. Null: the content did not, or does not, have the tag."""

    partition: int
    offset: int
    content: str
    name: str
    before: ContentEntry | None
    after: ContentEntry | None


def latest_of(event: TaggedContent, tagged: int, before: Latest | None, least: float) -> Latest:
    """The part of a result that enters the views. Without a time of its own a content keeps that of its first result: a
    retag is not a new content. `tagged`: time of the record, in ms; no content is newer than that."""
    told = tagged if event.time is None else int(event.time.timestamp() * 1000)
    time = before.time if event.time is None and before is not None else told
    marks = {tag.id: Mark(id=tag.id, name=tag.name, confidence=tag.confidence) for tag in reversed(event.tags)}
    kept = tuple(mark for mark in reversed(marks.values()) if mark.confidence >= least)
    return Latest(tags=kept, release=event.versions.release, time=max(0, min(time, tagged)), tagged=tagged)


def before_offset(row: ContentRow, offset: int) -> Version | None:
    """The version that a record at this offset replaces. None: its changes are already delivered."""
    if offset <= row.versions[0].offset:
        return None
    return next(version for version in reversed(row.versions) if version.offset < offset)


def with_version(row: ContentRow, version: Version, delivered: int) -> ContentRow:
    """The row with a version; the same object if it has it. `delivered`: changes of records up to this offset are
    delivered."""
    if version.offset <= row.versions[-1].offset:
        return row
    versions = (*row.versions, version)
    first = max((n for n, one in enumerate(versions[:-1]) if one.offset <= delivered), default=0)
    return ContentRow(versions=versions[first:])


def is_forgotten(row: ContentRow, delivered: int) -> bool:
    """Whether the row of a withdrawn content may be deleted: the changes of its withdrawal are delivered too. They are
    not if the row is ahead of the records being read again."""
    return row.latest is None and row.versions[-1].offset <= delivered


def changes(
    content: str, partition: int, offset: int, before: Latest | None, after: Latest | None
) -> Iterator[tuple[str, Change]]:
    """The changes between two versions of a content, by tag. An unchanged tag has none."""
    old, new = _entries(before), _entries(after)
    for tag in old.keys() | new.keys():
        was, now = old.get(tag), new.get(tag)
        if was != now:
            name = now[0] if now else was[0] if was else ""
            yield (
                tag,
                Change(
                    partition=partition,
                    offset=offset,
                    content=content,
                    name=name,
                    before=was[1] if was else None,
                    after=now[1] if now else None,
                ),
            )


def _entries(latest: Latest | None) -> dict[str, tuple[str, ContentEntry]]:
    if latest is None:
        return {}
    ids = [mark.id for mark in latest.tags]
    return {
        mark.id: (
            mark.name,
            ContentEntry(
                confidence=mark.confidence,
                time=latest.time,
                together=tuple(other for other in ids if other != mark.id),
            ),
        )
        for mark in latest.tags
    }
