"""Records of the memory topics become points in the stores, or leave them."""

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

# Point keys by the names of their kinds.
Kept = dict[str, set[str]]
# Is told what memory holds of tags now, None where it holds them no longer.
Listener = Callable[[Mapping[str, Payload | None]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """A record of the topic of a kind. `place` names it in the log: topic:partition:offset, or file:line."""

    kind: str
    record: Record
    place: str


class Projection:
    """Applies records to memory in their order. One caller at a time: order is what makes it right."""

    def __init__(
        self,
        encoder: Encoder,
        memory: Memory,
        replicas: Sequence["Projection"] = (),
        listeners: Sequence[Listener] = (),
    ) -> None:
        """`replicas` apply the same records to the memories of other encoders, before this one's. `listeners` know of
        each change of a tag when `apply` or `sweep` returns: before a taxonomy version shows it."""
        self._encoder = encoder
        self._memory = memory
        self._replicas = replicas
        self._listeners = listeners

    def empty(self) -> Kept:
        """No keys of any kind, to collect in what `apply` returns."""
        return {kind: set() for kind in self._memory.stores}

    async def apply(self, records: Sequence[MemoryRecord]) -> Kept:
        """Apply records; of several with one key the last counts. Returns the keys that they leave in memory.

        A record that is no valid event is skipped, logged and counted: what stood under its key stays, and its key
        is among those returned. Raises DependencyDown when encoder or store does not answer; apply them again then.
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
        """Delete every key that a reading of the whole topics did not leave: its tombstone may be gone by now."""
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
        """Encode and store, but for what stands there already: a restart over a kept store encodes nothing twice.

        Where only the payload differs, by a decision or because it is kept in another form now, the vector stays.
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
        # All of them: a store may have taken what it did not confirm, and what is told twice does no harm.
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
