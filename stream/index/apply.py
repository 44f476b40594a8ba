"""Apply records of the memory topics to the stores."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from tagbus.stream import telemetry
from tagbus.stream.contract.codec import Record, Tombstone
from tagbus.stream.encoder.base import Encoder
from tagbus.stream.errors import Poison
from tagbus.stream.memory.kinds import HASH, KINDS, TAGS, Entry
from tagbus.stream.memory.store import Memory, Payload, Point

log = logging.getLogger(__name__)

# Point keys by kind.
Kept = dict[str, set[str]]
# Receives what memory holds for changed tags; None for a tag that was removed.
Listener = Callable[[Mapping[str, Payload | None]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """A record of a kind's topic. `place` identifies it in log messages: topic:partition:offset, or file:line."""

    kind: str
    record: Record
    place: str


class Projection:
    """Applies records to memory in order. Calls must not overlap: the result depends on the order."""

    def __init__(
        self,
        encoder: Encoder,
        memory: Memory,
        replicas: Sequence["Projection"] = (),
        listeners: Sequence[Listener] = (),
    ) -> None:
        """`replicas` apply the same records to the memories of other encoders, before this one's. `listeners` have
        received every tag change when `apply` or `sweep` returns, so before a taxonomy version includes it."""
        self._encoder = encoder
        self._memory = memory
        self._replicas = replicas
        self._listeners = listeners

    def empty(self) -> Kept:
        """An empty set of keys per kind, to collect the results of `apply`."""
        return {kind: set() for kind in self._memory.stores}

    async def apply(self, records: Sequence[MemoryRecord]) -> Kept:
        """Apply records; the last one per key wins. Returns the keys that they leave in memory.

        An invalid record is skipped, logged and counted: the point under its key stays, and its key is among those
        returned. Raises DependencyDown if encoder or store does not answer; it is then safe to apply them again.
        """
        for replica in self._replicas:
            await replica.apply(records)
        kept = self.empty()
        for kind in kept:
            latest: dict[str, Entry | None] = {}
            for item in records:
                if item.kind == kind:
                    latest.update(self._decode(item, kept[kind]))
            await self._delete(kind, [key for key, entry in latest.items() if entry is None])
            await self._upsert(kind, [entry for entry in latest.values() if entry is not None])
            kept[kind].update(key for key, entry in latest.items() if entry is not None)
            kept[kind].difference_update(key for key, entry in latest.items() if entry is None)
        return kept

    async def sweep(self, kept: Mapping[str, set[str]]) -> None:
        """Delete every key that a full read of the topics did not leave: its tombstone may be compacted away by now."""
        for replica in self._replicas:
            await replica.sweep(kept)
        for kind, store in self._memory.stores.items():
            if kind in kept:
                await self._delete(kind, sorted(await store.keys() - kept[kind]))

    async def _delete(self, kind: str, keys: Sequence[str]) -> None:
        if keys:
            await self._memory.stores[kind].delete(keys)
            await self._tell(kind, dict.fromkeys(keys))

    async def _upsert(self, kind: str, entries: Sequence[Entry]) -> None:
        """Encode and store, except what is already stored: a restart over a persistent store encodes nothing twice.

        If only the payload differs, by a decision or a change of its format, the vector is kept.
        """
        store = self._memory.stores[kind]
        known = await store.fetch([entry.key for entry in entries])
        fresh = [entry for entry in entries if known.get(entry.key, {}).get(HASH) != entry.payload[HASH]]
        encoded = {entry.key for entry in fresh}
        changed = {
            entry.key: entry.payload
            for entry in entries
            if entry.key not in encoded and known[entry.key] != entry.payload
        }
        if changed:
            await store.set_payloads(changed)
        if fresh:
            vectors = await self._encoder.encode([entry.text for entry in fresh])
            await store.upsert(
                [Point(entry.key, vector, entry.payload) for entry, vector in zip(fresh, vectors, strict=True)]
            )
        # All of them: a store may have applied what it did not confirm, and repeated notifications are harmless.
        await self._tell(kind, {entry.key: entry.payload for entry in entries})

    async def _tell(self, kind: str, changes: Mapping[str, Payload | None]) -> None:
        if kind == TAGS.name and changes:
            for listener in self._listeners:
                await listener(changes)

    def _decode(self, item: MemoryRecord, kept: set[str]) -> dict[str, Entry | None]:
        try:
            found = KINDS[item.kind].read(item.record, self._encoder.release)
        except Poison as error:
            telemetry.MEMORY_SKIPPED.labels(topic=item.kind).inc()
            log.warning("skipped %s: %s", item.place, error)
            if item.record.key is not None:
                kept.add(item.record.key.decode(errors="replace"))
            return {}
        return {found.key: None if isinstance(found, Tombstone) else found}
