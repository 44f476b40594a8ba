"""Tag changes for a worker whose memory another process writes.

A store does not publish changes, and a retired tag can no longer be read from it. So the worker reads the topic `tags`
itself.
"""

from collections.abc import Mapping, Sequence

from tagbus.stream.contract.codec import Tombstone
from tagbus.stream.encoder.release import Release
from tagbus.stream.errors import Poison
from tagbus.stream.index.apply import Kept, Listener, MemoryRecord, Read
from tagbus.stream.memory.kinds import TAGS
from tagbus.stream.memory.store import Payload


class TagChanges:
    """Takes a projection's place in a Follower and only notifies listeners of tag changes."""

    def __init__(self, release: Release, listeners: Sequence[Listener]) -> None:
        self._release = release
        self._listeners = listeners

    def empty(self) -> Kept:
        """An empty set of keys: only `tags` is read."""
        return {TAGS.name: set()}

    async def apply(self, records: Sequence[MemoryRecord]) -> Kept:
        """Notify the listeners; the last record per key wins. The writer of the memory logs and counts invalid
        records."""
        changes: dict[str, Payload | None] = {}
        for item in records:
            try:
                found = TAGS.read(item.record, self._release)
            except Poison:
                continue
            changes[found.key] = None if isinstance(found, Tombstone) else found.payload
        for listener in self._listeners:
            await listener(changes)
        return self.empty()

    async def sweep(self, kept: Mapping[str, set[str]], read: Read | None = None) -> None:
        """Does nothing: another process owns the memory."""
