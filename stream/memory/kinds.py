"""The kinds of points in memory, one row each: its topic, how its records are read, what is encoded and what is kept.

Code that fills, saves or counts memory goes through `KINDS`; a new kind is a new row.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar, cast

from prometheus_client import Gauge

from tagbus.stream import telemetry
from tagbus.stream.config import TopicSettings
from tagbus.stream.contract.codec import Record, Tombstone, decode_exemplar, decode_knowledge, decode_tag
from tagbus.stream.contract.events import Exemplar, Knowledge, Tag
from tagbus.stream.contract.fields import Event
from tagbus.stream.encoder.release import Release, content_text
from tagbus.stream.memory.hits import KEY
from tagbus.stream.memory.scopes import REPLACED
from tagbus.stream.memory.store import Payload

E = TypeVar("E", bound=Event)

# Field of every payload: whether the text has changed since it was encoded.
HASH: Final = "text_hash"
# The part of a text kept for prompts: some 100 tokens of an exemplar, of which a prompt has three, and some 500 of a
# segment of knowledge. The vector is that of the whole text.
EXEMPLAR_CHARS: Final = 500
KNOWLEDGE_CHARS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Entry:
    """An event as stored in memory: a point under `key`, the vector of `text`, and `payload`."""

    key: str
    text: str
    payload: Payload


class Kind(Protocol):
    """One kind of point, for code that fills and opens memory."""

    @property
    def name(self) -> str:
        """The name of its stores, collections and folders."""

    @property
    def tags(self) -> str | None:
        """Which tags its points carry: see `Carried.tags`."""

    @property
    def model(self) -> type[Event]:
        """The model of the events on its topic."""

    @property
    def optional(self) -> bool:
        """Whether a worker runs without its topic until one exists."""

    @property
    def gauge(self) -> Gauge:
        """The gauge of its number of points."""

    def topic(self, topics: TopicSettings) -> str:
        """The compacted topic that it is built from."""

    def read(self, record: Record, release: Release) -> Entry | Tombstone:
        """The change that a record of the topic requests. Raises Undecodable or InvalidEvent."""


@dataclass(frozen=True, slots=True)
class EventKind(Generic[E]):
    """A row of the table: everything specific to one kind.

    `text` returns the part of an event that the encoder reads; `payload` the part kept beside the vector, without the
    hash.
    """

    name: str
    model: type[E]
    named: Callable[[TopicSettings], str]
    decode: Callable[[Record], E | Tombstone]
    key: Callable[[E], str]
    text: Callable[[Release, E], str]
    payload: Callable[[E], Payload]
    gauge: Gauge
    tags: str | None = None
    optional: bool = False

    def topic(self, topics: TopicSettings) -> str:
        """See `Kind`."""
        return self.named(topics)

    def read(self, record: Record, release: Release) -> Entry | Tombstone:
        """See `Kind`."""
        event = self.decode(record)
        if isinstance(event, Tombstone):
            return event
        text = self.text(release, event)
        return Entry(self.key(event), text, {**self.payload(event), HASH: _hash(text)})


def excerpt(text: str, limit: int) -> str:
    """The beginning of a text, at most `limit` characters, cut after a word where it has words."""
    text = text.strip()
    if len(text) <= limit:
        return text
    cut = text[: limit + 1]
    if cut[-1].isspace():
        return cut.rstrip()
    words = cut.rsplit(maxsplit=1)
    return words[0] if len(words) > 1 else text[:limit]


def tag_text(release: Release, payload: Payload) -> str:
    """The text that the encoder reads of a tag in memory."""
    aliases = cast(Sequence[str], payload["aliases"])
    return release.tag_text(cast(str, payload["name"]), tuple(aliases), cast(str, payload["description"]))


def _tag_payload(tag: Tag) -> Payload:
    return {
        "name": tag.name,
        "names": dict(tag.names),
        "aliases": list(tag.aliases),
        "description": tag.description,
        "parents": list(tag.parents),
        "scopes": list(tag.scopes),
        REPLACED: list(tag.replaced_by),
    }


def _exemplar_payload(exemplar: Exemplar) -> Payload:
    return {
        "id": exemplar.id,
        "source": exemplar.source,
        "title": exemplar.title,
        "text": excerpt(exemplar.text, EXEMPLAR_CHARS),
        "accepted": list(exemplar.accepted),
        "rejected": list(exemplar.rejected),
        "scopes": list(exemplar.scopes),
    }


def _knowledge_payload(segment: Knowledge) -> Payload:
    valid = segment.model_dump(mode="json", include={"valid_from", "valid_until"})
    return {
        "kind": segment.kind,
        "title": segment.title,
        "text": excerpt(segment.text, KNOWLEDGE_CHARS),
        **valid,
        "scopes": list(segment.scopes),
    }


def _hash(text: str) -> str:
    """A hash that detects a changed text: 64 bits are enough, there is one text for each key."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


TAGS: Final = EventKind(
    name="tags",
    model=Tag,
    named=lambda topics: topics.tags,
    decode=decode_tag,
    key=lambda tag: tag.id,
    text=lambda release, tag: release.tag_text(tag.name, tag.aliases, tag.description),
    payload=_tag_payload,
    gauge=telemetry.TAXONOMY_TAGS,
    tags=KEY,
)

EXEMPLARS: Final = EventKind(
    name="exemplars",
    model=Exemplar,
    named=lambda topics: topics.exemplars,
    decode=decode_exemplar,
    key=lambda exemplar: exemplar.key,
    text=lambda _, exemplar: content_text(exemplar.title, exemplar.text),
    payload=_exemplar_payload,
    gauge=telemetry.MEMORY_EXEMPLARS,
    tags="accepted",
)

KNOWLEDGE: Final = EventKind(
    name="knowledge",
    model=Knowledge,
    named=lambda topics: topics.knowledge,
    decode=decode_knowledge,
    key=lambda segment: segment.id,
    text=lambda _, segment: content_text(segment.title, segment.text),
    payload=_knowledge_payload,
    gauge=telemetry.MEMORY_KNOWLEDGE,
    optional=True,
)

KINDS: Final[dict[str, Kind]] = {kind.name: kind for kind in (TAGS, EXEMPLARS, KNOWLEDGE)}


def carrying() -> dict[str, Kind]:
    """The kinds whose points carry tags: the only ones for a second encoder."""
    return {name: kind for name, kind in KINDS.items() if kind.tags is not None}
