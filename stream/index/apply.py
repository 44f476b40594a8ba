"""Records of the memory topics become points in the stores, or leave them."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tagbus.stream import telemetry
from tagbus.stream.contract.codec import Record, Tombstone, decode_exemplar, decode_tag
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.encoder.base import Encoder
from tagbus.stream.encoder.release import Release, content_text
from tagbus.stream.errors import Poison
from tagbus.stream.memory.store import Payload, Point, Store

log = logging.getLogger(__name__)

Kind = Literal["tags", "exemplars"]


@dataclass(frozen=True, slots=True)
class Memory:
    """The two stores that recall searches, and those of a companion's release, which hold the same records."""

    tags: Store
    exemplars: Store
    beside: "Memory | None" = None

    def store(self, kind: Kind) -> Store:
        """The store of that kind."""
        return self.tags if kind == "tags" else self.exemplars

    async def close(self) -> None:
        """Close all stores."""
        await self.tags.close()
        await self.exemplars.close()
        if self.beside is not None:
            await self.beside.close()


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """A record of a memory topic. `place` names it in the log: topic:partition:offset, or file:line."""

    kind: Kind
    record: Record
    place: str


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a record asks for: a text to encode and a payload to keep."""

    text: str
    payload: Payload


class Projection:
    """Applies records to memory in their order. One caller at a time: order is what makes it right."""

    def __init__(self, encoder: Encoder, memory: Memory, beside: "Projection | None" = None) -> None:
        """`beside`: what applies the same records to a companion's memory, before this one's."""
        self._encoder = encoder
        self._memory = memory
        self._beside = beside

    async def apply(self, records: Sequence[MemoryRecord]) -> dict[Kind, set[str]]:
        """Apply records; of several with one key the last counts. Returns the keys that they leave in memory.

        A record that is no valid event is skipped, logged and counted: what stood under its key stays, and its key
        is among those returned. Raises DependencyDown when encoder or store does not answer; apply them again then.
        """
        if self._beside is not None:
            await self._beside.apply(records)
        kept: dict[Kind, set[str]] = {"tags": set(), "exemplars": set()}
        for kind in kept:
            latest: dict[str, _Entry | None] = {}
            for item in records:
                if item.kind == kind:
                    latest.update(self._decode(item, kept[kind]))
            await self._delete(kind, [key for key, entry in latest.items() if entry is None])
            await self._upsert(kind, {key: entry for key, entry in latest.items() if entry is not None})
            kept[kind].update(key for key, entry in latest.items() if entry is not None)
            kept[kind].difference_update(key for key, entry in latest.items() if entry is None)
        return kept

    async def sweep(self, kept: Mapping[Kind, set[str]]) -> None:
        """Delete every key that a reading of the whole topics did not leave: its tombstone may be gone by now."""
        if self._beside is not None:
            await self._beside.sweep(kept)
        for kind, keys in kept.items():
            await self._delete(kind, sorted(await self._memory.store(kind).keys() - keys))

    async def _delete(self, kind: Kind, keys: Sequence[str]) -> None:
        if keys:
            await self._memory.store(kind).delete(keys)

    async def _upsert(self, kind: Kind, entries: Mapping[str, _Entry]) -> None:
        """Encode and store, but for what stands there already: a restart over a kept store encodes nothing twice."""
        store = self._memory.store(kind)
        known = await store.fetch(list(entries))
        fresh = {key: entry for key, entry in entries.items() if known.get(key) != entry.payload}
        if not fresh:
            return
        vectors = await self._encoder.encode([entry.text for entry in fresh.values()])
        await store.upsert(
            [Point(key, vector, entry.payload) for (key, entry), vector in zip(fresh.items(), vectors, strict=True)]
        )

    def _decode(self, item: MemoryRecord, kept: set[str]) -> dict[str, _Entry | None]:
        try:
            event = decode_tag(item.record) if item.kind == "tags" else decode_exemplar(item.record)
        except Poison as error:
            telemetry.MEMORY_SKIPPED.labels(topic=item.kind).inc()
            log.warning("skipped %s: %s", item.place, error)
            if item.record.key is not None:
                kept.add(item.record.key.decode(errors="replace"))
            return {}
        match event:
            case Tombstone(key):
                return {key: None}
            case Tag():
                return {event.id: _tag_entry(self._encoder.release, event)}
            case Exemplar():
                return {event.key: _exemplar_entry(event)}


def _tag_entry(release: Release, tag: Tag) -> _Entry:
    text = release.tag_text(tag.name, tag.aliases, tag.description)
    payload: Payload = {
        "name": tag.name,
        "aliases": list(tag.aliases),
        "parents": list(tag.parents),
        "text_hash": _hash(text),
    }
    return _Entry(text, payload)


def _exemplar_entry(exemplar: Exemplar) -> _Entry:
    text = content_text(exemplar.title, exemplar.text)
    payload: Payload = {
        "id": exemplar.id,
        "source": exemplar.source,
        "accepted": list(exemplar.accepted),
        "rejected": list(exemplar.rejected),
        "text_hash": _hash(text),
    }
    return _Entry(text, payload)


def _hash(text: str) -> str:
    """Tells a changed text from the same one: 64 bits are enough, there is one text for each key."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
