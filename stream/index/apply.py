"""Apply records of the memory topics to the stores."""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from tagbus.stream import telemetry
from tagbus.stream.contract.codec import Record, Tombstone
from tagbus.stream.encoder.base import Encoder
from tagbus.stream.errors import Poison
from tagbus.stream.memory.kinds import HASH, KINDS, TAGS, Entry
from tagbus.stream.memory.shared import SharedStore
from tagbus.stream.memory.store import RECORD, Memory, Payload, Point, Source

log = logging.getLogger(__name__)

# Point keys by kind.
Kept = dict[str, set[str]]
# The next offset of each partition, by kind.
Read = Mapping[str, Mapping[int, int]]
# Receives the payloads of changed points of a kind; None for a removed point.
Listener = Callable[[Mapping[str, Payload | None]], Awaitable[None]]
# The listeners of each kind, by its name.
Listeners = Mapping[str, Sequence[Listener]]


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """A record of a kind's topic. `place` identifies it in log messages: topic:partition:offset, or file:line.
    `source`: its position, if it is on a topic."""

    kind: str
    record: Record
    place: str
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class _Change:
    """The change that a record makes; without an entry its point is deleted."""

    entry: Entry | None
    source: Source | None

    def overtaken_by(self, other: "_Change | None") -> bool:
        """Whether the other change, although read earlier, is of a newer record, in a partition that the key has moved
        to."""
        return bool(other and other.source and self.source and other.source.is_newer(self.source))


class Projection:
    """Applies records to memory. Calls must not overlap, because the result depends on their order."""

    def __init__(
        self,
        encoder: Encoder,
        memory: Memory,
        replicas: Sequence["Projection"] = (),
        listeners: Listeners | None = None,
    ) -> None:
        """`replicas`: apply the same records to the memories of other encoders, before this one. `listeners`: have
        received every change of their kind when `apply` or `sweep` returns, that is before a taxonomy version
        includes it."""
        self._encoder = encoder
        self._memory = memory
        self._replicas = replicas
        self._listeners = listeners or {}
        self._shared = {kind: store for kind, store in memory.stores.items() if isinstance(store, SharedStore)}

    def empty(self) -> Kept:
        """An empty set of keys per kind, to collect the results of `apply`."""
        return {kind: set() for kind in self._memory.stores}

    async def apply(self, records: Sequence[MemoryRecord]) -> Kept:
        """Apply records; the last one per key wins. Returns the keys that remain in memory.

        An invalid record is skipped, logged and counted: the point under its key stays, and its key is among those
        returned. Raises DependencyDown if encoder or store does not answer; applying the records again is safe.
        """
        for replica in self._replicas:
            await replica.apply(records)
        kept = self.empty()
        for kind in kept:
            latest: dict[str, _Change] = {}
            for item in records:
                if item.kind == kind:
                    for key, change in self._decode(item, kept[kind]).items():
                        if not change.overtaken_by(latest.get(key)):
                            latest[key] = change
            gone = {key: change.source for key, change in latest.items() if change.entry is None}
            await self._delete(kind, gone)
            await self._upsert(kind, [change.entry for change in latest.values() if change.entry is not None])
            kept[kind].update(latest.keys() - gone.keys())
            kept[kind] -= gone.keys()
        return kept

    async def sweep(self, kept: Mapping[str, set[str]], read: Read | None = None) -> None:
        """Delete every key that a full read of the topics did not keep: its tombstone may already be compacted away.

        `read`: the offsets up to which the topics were read. Points that another process wrote of later records stay.
        """
        for replica in self._replicas:
            await replica.sweep(kept, read)
        for kind, store in self._memory.stores.items():
            if kind in kept and (keys := sorted(await store.keys() - kept[kind])):
                if kind in self._shared:
                    await self._shared[kind].sweep(keys, (read or {}).get(kind, {}))
                else:
                    await store.delete(keys)
                await self._tell(kind, dict.fromkeys(keys))

    async def tags(self, keys: Collection[str]) -> tuple[int, int]:
        """The number of these tags in memory, and of all tags."""
        store = self._memory.stores.get(TAGS.name)
        return (0, 0) if store is None else (len(await store.fetch([*keys])), await store.count())

    async def _delete(self, kind: str, keys: Mapping[str, Source | None]) -> None:
        if not keys:
            return
        placed = {key: source for key, source in keys.items() if source is not None and kind in self._shared}
        if placed:
            await self._shared[kind].retire(placed)
        if unplaced := sorted(keys.keys() - placed.keys()):
            await self._memory.stores[kind].delete(unplaced)
        await self._tell(kind, dict.fromkeys(keys))

    async def _upsert(self, kind: str, entries: Sequence[Entry]) -> None:
        """Encode and store entries, except those already stored: a restart on a persistent store encodes nothing twice.

        If only the payload differs, by a decision or a change of its format, the vector is kept. Points that a shared
        store has from newer records are left unchanged.
        """
        store = self._memory.stores[kind]
        known = await store.fetch([entry.key for entry in entries])
        entries = [entry for entry in entries if not _is_newer(known.get(entry.key, {}), entry.payload)]
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
        # All of them: a store may have applied an unconfirmed write, and repeated notifications are harmless.
        await self._tell(kind, {entry.key: entry.payload for entry in entries})

    async def _tell(self, kind: str, changes: Mapping[str, Payload | None]) -> None:
        if changes:
            for listener in self._listeners.get(kind, ()):
                await listener(changes)

    def _decode(self, item: MemoryRecord, kept: set[str]) -> dict[str, _Change]:
        try:
            found = KINDS[item.kind].read(item.record, self._encoder.release)
        except Poison as error:
            telemetry.MEMORY_SKIPPED.labels(topic=item.kind).inc()
            log.warning("skipped %s: %s", item.place, error)
            if item.record.key is not None:
                kept.add(item.record.key.decode(errors="replace"))
            return {}
        if isinstance(found, Tombstone):
            return {found.key: _Change(None, item.source)}
        if item.source is not None and item.kind in self._shared:
            found = replace(found, payload={**found.payload, RECORD: item.source.as_json()})
        return {found.key: _Change(found, item.source)}


def _is_newer(known: Payload, payload: Payload) -> bool:
    """Whether the stored payload is of a newer record than the given one."""
    theirs, ours = Source.of(known), Source.of(payload)
    return bool(theirs and ours and theirs.is_newer(ours))
