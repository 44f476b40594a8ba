"""The tags in memory that no model was trained on: new ones, which only their texts can find."""

import asyncio
from collections.abc import Mapping

import numpy as np

from tagbus.stream.memory.hits import Hits
from tagbus.stream.memory.store import Payload, Scopes, SelectiveStore, Store, Vectors


class Unseen:
    """Searches memory's tags except the known ones. It must be notified of every change of a tag."""

    def __init__(self, known: frozenset[str], tags: Store) -> None:
        """`known`: the ids of the tags that the models know. `tags` is read at the first search: a snapshot fills it
        after this is opened."""
        self._known = known
        self._tags = tags
        self._selective = tags if isinstance(tags, SelectiveStore) else None
        self._keys: set[str] = set()
        self._reading = asyncio.Lock()
        # Tags changed before the first read ended, None afterwards: that read may miss their changes.
        self._changed: set[str] | None = set()

    async def change(self, tags: Mapping[str, Payload | None]) -> None:
        """Apply memory's current payloads of these tags; None: removed."""
        if self._changed is not None:
            self._changed.update(tags)
        self._keys |= {tag for tag, payload in tags.items() if payload is not None} - self._known
        self._keys -= {tag for tag, payload in tags.items() if payload is None}

    async def keys(self) -> frozenset[str]:
        """The ids of these tags. Raises DependencyDown if memory does not answer."""
        await self._read()
        return frozenset(self._keys)

    async def search(self, vectors: Vectors, limit: int, scopes: Scopes = None) -> Hits | None:
        """The nearest unseen tags of each content [n, d], `limit` at most; None if there are none.

        On a server all tags are searched, so that only those are found that are among the nearest of all. Raises
        DependencyDown if memory does not answer.
        """
        await self._read()
        if not self._keys:
            return None
        if self._selective is not None:
            return await self._selective.search_among(vectors, limit, frozenset(self._keys), scopes)
        hits = await self._tags.search(vectors, limit, scopes)
        return hits.where(np.array([key in self._keys for key in hits.keys.tolist()], np.bool_))

    async def _read(self) -> None:
        """Find memory's unseen tags, once."""
        if self._changed is None:
            return
        async with self._reading:
            if self._changed is not None:
                stored = await self._tags.keys()
                self._keys |= stored - self._known - self._changed
                self._changed = None
