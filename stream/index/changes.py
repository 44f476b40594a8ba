"""Change notifications for a worker whose memory another process writes.

A store does not publish changes, and removed points can no longer be read from it. So the worker itself reads the
topics of the kinds that have listeners.
"""

from collections.abc import Collection, Mapping, Sequence

from tagbus.stream.contract.codec import Tombstone
from tagbus.stream.encoder.release import Release
from tagbus.stream.errors import Poison
from tagbus.stream.index.apply import Kept, Listeners, MemoryRecord, Read
from tagbus.stream.memory.kinds import KINDS
from tagbus.stream.memory.store import Payload


class MemoryChanges:
    """Replaces the projection in a Follower; it only notifies listeners."""

    def __init__(self, release: Release, listeners: Listeners) -> None:
        self._release = release
        self._listeners = listeners

    def empty(self) -> Kept:
        """An empty set of keys for each kind with listeners; only these are read."""
        return {kind: set() for kind in self._listeners}

    async def apply(self, records: Sequence[MemoryRecord]) -> Kept:
        """Notify the listeners; the last record per key wins. The writer of the memory logs and counts invalid
        records."""
        for kind, listeners in self._listeners.items():
            changes = self._changes([item for item in records if item.kind == kind])
            for listener in listeners if changes else ():
                await listener(changes)
        return self.empty()

    async def sweep(self, kept: Mapping[str, set[str]], read: Read | None = None) -> None:
        """Does nothing: another process owns the memory."""

    async def tags(self, keys: Collection[str]) -> tuple[int, int]:  # noqa: ARG002 - as a projection's
        """Zero: the process that writes the memory guards the taxonomy."""
        return 0, 0

    def _changes(self, records: Sequence[MemoryRecord]) -> dict[str, Payload | None]:
        changes: dict[str, Payload | None] = {}
        for item in records:
            try:
                found = KINDS[item.kind].read(item.record, self._release)
            except Poison:
                continue
            changes[found.key] = None if isinstance(found, Tombstone) else found.payload
        return changes
