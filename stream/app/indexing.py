"""`tagbus index` as a service: the writer of a shared memory, with its liveness and readiness."""

import asyncio
import logging
import time
from contextlib import suppress

from tagbus.stream import telemetry
from tagbus.stream.app import assemble
from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.app.probe import Probe
from tagbus.stream.config import Settings
from tagbus.stream.errors import Retryable
from tagbus.stream.index.bootstrap import Follower
from tagbus.stream.index.indexer import indexer
from tagbus.stream.kafka.admin.topics import require_compacted
from tagbus.stream.memory.kinds import KINDS

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
# Interval of gauge updates and of log lines.
REPORT_SECONDS = 30.0


class IndexService:
    """Writes the shared memory of the release of encoder.folder until it is cancelled."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack: TaggingStack | None = None
        self._follower: Follower | None = None
        self._probe = Probe(self._ask)
        self._turned = time.monotonic()

    async def run(self) -> None:
        """Raises as `assemble.opened`, `indexer` and `Follower.run` do, and UserError for a memory topic that is not
        compacted."""
        await asyncio.to_thread(require_compacted, [self._settings])
        async with assemble.opened(self._settings) as self._stack, asyncio.TaskGroup() as tasks:
            others = [tasks.create_task(self._tick())]
            self._follower = await indexer(self._settings, self._stack.projection(), self._stack.memories)
            others += [
                tasks.create_task(self._report(self._follower, self._stack)),
                tasks.create_task(self._open(self._follower)),
            ]
            try:
                await self._follower.run()
            finally:
                for other in others:
                    other.cancel()

    def not_live(self) -> list[str]:
        """Problems of the event loop."""
        stall = self._settings.health.stall_seconds
        if time.monotonic() - self._turned <= stall:
            return []
        return [f"the event loop has been stalled for {stall:.0f} s"]

    def not_ready(self) -> list[str]:
        """Problems of the memory, the encoder or the server."""
        follower = self._follower
        if follower is None or not follower.ready.is_set():
            left = 0 if follower is None else follower.remaining()
            return [f"the memory has {left} offsets left to read" if left else "the memory topics are not read yet"]
        problem = self._probe.problem() or follower.held
        return [problem] if problem else []

    async def _ask(self, text: str) -> str:
        """A real request to encoder and server."""
        if self._stack is None:
            return "starting"
        await self._stack.encoder.encode([text])
        await self._stack.memory.tags.fetch([text])
        return ""

    async def _tick(self) -> None:
        while True:
            self._turned = time.monotonic()
            await asyncio.sleep(TICK_SECONDS)

    async def _open(self, follower: Follower) -> None:
        await follower.ready.wait()
        self._probe.open(asyncio.get_running_loop())

    async def _report(self, follower: Follower, stack: TaggingStack) -> None:
        while True:
            with suppress(Retryable):
                for name, kind in KINDS.items():
                    kind.gauge.set(await stack.memory.stores[name].count())
            telemetry.MEMORY_AGE.set(follower.age())
            telemetry.MEMORY_REMAINING.set(follower.remaining())
            log.info("index: remaining=%d age=%.0fs", follower.remaining(), follower.age())
            await asyncio.sleep(REPORT_SECONDS)
