"""The service: one worker on the releases that it holds, with what liveness and readiness say of it."""

import asyncio
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import CancelledError
from types import FrameType

from tagbus.stream import telemetry
from tagbus.stream.app.releases.manager import ReleaseManager
from tagbus.stream.bus.consume.offsets import ReadRange
from tagbus.stream.bus.process.isolation import FREE
from tagbus.stream.bus.process.tag_processor import TagProcessor
from tagbus.stream.bus.worker import Worker
from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Content
from tagbus.stream.errors import TagbusError
from tagbus.stream.tagger import Failure, Outcome

# A probe is a real request: it is made at most so often, and must be answered within so long.
PROBE_SECONDS = 5.0
PROBE = Content(id="tagbus-readyz", title="is the tagger ready")


class Service:
    """One worker with its own memory (or its view of the shared one), built on the worker's loop."""

    def __init__(self, settings: Settings, work: Settings | None = None, read_range: ReadRange | None = None) -> None:
        """The memory is built by `settings`; the worker has those of `work`, where it is a backfill, and its span."""
        self._settings = settings
        self._manager = ReleaseManager(settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._living: asyncio.Task[None] | None = None
        self._probed = (0.0, "starting")
        given = work or settings
        self.worker = Worker(given, TagProcessor(given, self), self._gate, read_range)

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[Outcome]:
        """By the release in force, which is there once the gate is open."""
        return await self._manager.tag(contents, until)

    def revision(self) -> Hashable | None:
        """Of the release in force and its memory."""
        return self._manager.revision()

    def notes(self) -> list[str]:
        """What is worth to be told, though it is ready."""
        return self._manager.notes()

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
        if self._loop is None or not self._manager.opened.is_set():
            return "the memory is not built yet"
        if self._loop.is_closed():
            return "stopping"
        # Another text each time: the encoder's cache must not answer for a server that does not.
        probe = PROBE.model_copy(update={"title": f"{PROBE.title} at {time.time():.3f}"})
        asked = asyncio.run_coroutine_threadsafe(self.tag([probe], FREE), self._loop)
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
        self._living = asyncio.create_task(self._manager.run())
        self._living.add_done_callback(self._on_end)
        waiting = asyncio.create_task(self._manager.opened.wait())
        await asyncio.wait({self._living, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._living.done():
            self._living.result()

    def _on_end(self, living: "asyncio.Task[None]") -> None:
        """A memory that no longer follows its topics would tag with yesterday's taxonomy: the worker ends."""
        if not living.cancelled() and (error := living.exception()) is not None:
            self.worker.fail(error)
