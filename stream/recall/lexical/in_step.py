"""Keeps an index in sync with a store: reads the store once, then applies every change."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from tagbus.stream.memory.serial import Serial
from tagbus.stream.memory.store import Payload, Store

# Points read at a time.
CHUNK: Final = 1_000

Changes = Mapping[str, Payload | None]


class InStep:
    """Reads a store for an index, and forwards its changes."""

    def __init__(self, store: Store, serial: Serial, apply: Callable[[Changes], None]) -> None:
        """`apply` receives the store's payloads of some keys, None: removed; always on the thread of `serial`."""
        self._store = store
        self._serial = serial
        self._apply = apply
        self._reading = asyncio.Lock()
        # Keys changed before the first read ended, None afterwards: their payloads from that read may be stale.
        self._changed: set[str] | None = set()

    async def read(self) -> None:
        """Read the store's content from before the first change, once. Raises DependencyDown."""
        if self._changed is None:
            return
        async with self._reading:
            if self._changed is None:
                return
            wanted = await self._serial.run(self._unread, await self._store.keys())
            for start in range(0, len(wanted), CHUNK):
                await self._serial.run(self._take, await self._store.fetch(wanted[start : start + CHUNK]))
            self._changed = None

    async def change(self, changes: Changes) -> None:
        """Apply the store's current payloads of these keys; None: removed."""
        await self._serial.run(self._change, changes)

    def _unread(self, keys: set[str]) -> list[str]:
        return sorted(keys - (self._changed or set()))

    def _take(self, payloads: Mapping[str, Payload]) -> None:
        changed = self._changed or set()
        self._apply({key: payload for key, payload in payloads.items() if key not in changed})

    def _change(self, changes: Changes) -> None:
        if self._changed is not None:
            self._changed.update(changes)
        self._apply(changes)
