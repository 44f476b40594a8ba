"""An index in step with a store: what the store holds is read once, and every change is applied as it comes."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from tagbus.stream.memory.serial import Serial
from tagbus.stream.memory.store import Payload, Store

# Points read at once.
CHUNK: Final = 1_000

Changes = Mapping[str, Payload | None]


class InStep:
    """Reads a store for an index, and hands on its changes."""

    def __init__(self, store: Store, serial: Serial, apply: Callable[[Changes], None]) -> None:
        """`apply` takes over what the store holds of some keys, None: nothing; always on the thread of `serial`."""
        self._store = store
        self._serial = serial
        self._apply = apply
        self._reading = asyncio.Lock()
        # Keys changed before the first reading ended, None afterwards: what it read of them may be stale.
        self._changed: set[str] | None = set()

    async def read(self) -> None:
        """Read what the store held before the first change, once. Raises DependencyDown."""
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
        """Apply what the store now holds of these keys; None: removed."""
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
