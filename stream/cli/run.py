"""`tagbus run` and `tagbus index`: the service, and what writes a memory that workers share."""

import asyncio
import logging
import signal
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import CancelledError
from types import FrameType
from typing import Annotated, Literal

import typer

from tagbus.stream import telemetry
from tagbus.stream.bus.span import Span
from tagbus.stream.bus.worker import Worker
from tagbus.stream.cli import build, out
from tagbus.stream.cli.backfill import Asked, plan
from tagbus.stream.cli.brains import Brains
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.events import Content, TaggedContent
from tagbus.stream.errors import TagbusError, UserError
from tagbus.stream.health import HealthServer
from tagbus.stream.index.write import Progress, indexer
from tagbus.stream.tagger import Failure

log = logging.getLogger(__name__)

Level = Annotated[Literal["debug", "info", "warning", "error"], typer.Option("--log", help="least level of log lines")]
# A probe is a real request: it is made at most so often, and must be answered within so long.
PROBE_SECONDS = 5.0
PROBE = Content(id="tagbus-readyz", title="is the tagger ready")


def run(
    start: Annotated[
        str | None, typer.Option("--from", help="of a backfill: earliest, a time, 2h ago, or offsets 0:1041,1:977")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="of a backfill: end (now), a time, or 2h ago")] = None,
    group: Annotated[str | None, typer.Option("--group", help="of a backfill: a consumer group of its own")] = None,
    output: Annotated[str | None, typer.Option("--output", help="of a backfill: a topic of its own")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="of a backfill: contents a second at most")] = None,
    level: Level = "info",
) -> None:
    """Tag what comes on `content` until SIGTERM. Settings come from the environment: `tagbus config`.

    /livez, /readyz and /metrics are on TAGBUS_HEALTH__PORT. A second SIGTERM ends it at once; nothing is lost by it.
    With --from, --group and --output it is a backfill, which ends when it has reached the end.
    """
    settings = load()
    backfill = plan(settings, Asked(start, until, group, output, rate))
    out.set_up_logging(level)
    service = Service(settings) if backfill is None else Service(settings, backfill.settings, backfill.span)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, service.on_signal)
    health = HealthServer(settings.health, service.not_live, service.not_ready, service.notes)
    try:
        service.worker.run()
    finally:
        health.close()


class Service:
    """One worker with its own memory (or its view of the shared one), built on the worker's loop."""

    def __init__(self, settings: Settings, work: Settings | None = None, span: Span | None = None) -> None:
        """The memory is built by `settings`; the worker has those of `work`, where it is a backfill, and its span."""
        self._settings = settings
        self._brains = Brains(settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._living: asyncio.Task[None] | None = None
        self._probed = (0.0, "starting")
        self.worker = Worker(work or settings, self, self._gate, span)

    async def tag(self, contents: Sequence[Content]) -> list[TaggedContent | Failure]:
        """By the release in force, which is there once the gate is open."""
        return await self._brains.tag(contents)

    def revision(self) -> Hashable | None:
        """Of the release in force and its memory."""
        return self._brains.revision()

    def notes(self) -> list[str]:
        """What is worth to be told, though it is ready."""
        return self._brains.notes()

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """SIGTERM and SIGINT: drain; a second one: at once."""
        self.worker.stop()

    def not_live(self) -> list[str]:
        """What is wrong with the poll loop."""
        if self.worker.alive():
            return []
        return [f"the poll loop has not turned for {self._settings.health.stall_seconds:.0f} s"]

    def not_ready(self) -> list[str]:
        """What is wrong with the assignment, the encoder or the memory."""
        wrong = [] if self.worker.ready() else ["no partitions assigned, or a dependency is down"]
        if problem := self._probe():
            wrong.append(problem)
        telemetry.READY.set(not wrong)
        return wrong

    def _probe(self) -> str:
        """What a real request to encoder and memory says; empty when it was answered."""
        probed, words = self._probed
        if time.monotonic() - probed < PROBE_SECONDS:
            return words
        self._probed = (time.monotonic(), self._ask())
        return self._probed[1]

    def _ask(self) -> str:
        if self._loop is None or not self._brains.opened.is_set():
            return "the memory is not built yet"
        if self._loop.is_closed():
            return "stopping"
        # Another text each time: the encoder's cache must not answer for a server that does not.
        probe = PROBE.model_copy(update={"title": f"{PROBE.title} at {time.time():.3f}"})
        asked = asyncio.run_coroutine_threadsafe(self.tag([probe]), self._loop)
        try:
            answer = asked.result(PROBE_SECONDS)[0]
        except TimeoutError:
            asked.cancel()
            return f"encoder and memory did not answer within {PROBE_SECONDS:.0f} s"
        except CancelledError:
            return "stopping"
        except TagbusError as error:
            return str(error)
        return str(answer.error) if isinstance(answer, Failure) else ""

    async def _gate(self) -> None:
        """Returns when the memory of the release in force is complete; it goes on following until the loop ends."""
        self._loop = asyncio.get_running_loop()
        self._living = asyncio.create_task(self._brains.run())
        self._living.add_done_callback(self._on_end)
        waiting = asyncio.create_task(self._brains.opened.wait())
        await asyncio.wait({self._living, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._living.done():
            self._living.result()

    def _on_end(self, living: "asyncio.Task[None]") -> None:
        """A memory that no longer follows its topics would tag with yesterday's taxonomy: the worker ends."""
        if not living.cancelled() and (error := living.exception()) is not None:
            self.worker.fail(error)


def index(level: Level = "info") -> None:
    """Write the memory that workers share (TAGBUS_MEMORY__KIND=server) until SIGTERM. Run one of it.

    It goes on where it was stopped; after longer than TAGBUS_MEMORY__TOMBSTONE_HOURS it builds the memory anew.
    """
    settings = load()
    if settings.memory.kind != "server":
        raise UserError(f"TAGBUS_MEMORY__KIND={settings.memory.kind}: nobody shares such a memory, expected server")
    out.set_up_logging(level)
    asyncio.run(_index(settings))


async def _index(settings: Settings) -> None:
    async with build.opened(settings) as brain:
        progress = await asyncio.to_thread(Progress, settings, brain.release.name)
        follower = await indexer(settings, brain.projection(), brain.memory, progress)
        following = asyncio.create_task(follower.run())
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, following.cancel)
        try:
            await following
        except asyncio.CancelledError:
            log.info("index: stopped")
        finally:
            await asyncio.to_thread(progress.close)
