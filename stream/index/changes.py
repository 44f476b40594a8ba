"""Changes of tags for a worker whose memory another process writes.

A store does not tell what has changed in it, and a retired tag is no longer there to be found. So the worker reads the
topic `tags` itself.
"""

from collections.abc import Mapping, Sequence

from tagbus.stream.contract.codec import Tombstone
from tagbus.stream.encoder.release import Release
from tagbus.stream.errors import Poison
from tagbus.stream.index.apply import Kept, Listener, MemoryRecord
from tagbus.stream.memory.kinds import TAGS
from tagbus.stream.memory.store import Payload


class TagChanges:
    """What a Follower fills in place of a projection: it only tells listeners what memory holds of each tag."""

    def __init__(self, release: Release, listeners: Sequence[Listener]) -> None:
        self._release = release
        self._listeners = listeners

    def empty(self) -> Kept:
        """No keys: `tags` alone is read."""
        return {TAGS.name: set()}

    async def apply(self, records: Sequence[MemoryRecord]) -> Kept:
        """Tell the listeners; of several records with one key the last counts. Whoever writes the memory logs and
        counts what is no event."""
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

    async def sweep(self, kept: Mapping[str, set[str]]) -> None:
        """Nothing: the memory is another's."""
