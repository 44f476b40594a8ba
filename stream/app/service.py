"""The service: one worker over the loaded releases, with its liveness and readiness."""

import asyncio
from collections.abc import Hashable, Sequence
from types import FrameType

from tagbus.stream.app.judge import spending
from tagbus.stream.app.judge.judging import Given
from tagbus.stream.app.probe import Probe
from tagbus.stream.app.releases.manager import ReleaseManager
from tagbus.stream.bus.consume.bounds import ReadRange
from tagbus.stream.bus.process.isolation import FREE
from tagbus.stream.bus.process.tag_processor import TagProcessor
from tagbus.stream.bus.worker import Worker
from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Content
from tagbus.stream.kafka.admin.topics import require_compacted
from tagbus.stream.llm.batch.answers import Offered, Prepared
from tagbus.stream.tagger import Failure, Outcome


class Service:
    """One worker with its own memory, or its view of the shared one, built on the worker's loop."""

    def __init__(
        self,
        settings: Settings,
        work: Settings | None = None,
        read_range: ReadRange | None = None,
        prepared: Prepared | None = None,
    ) -> None:
        """The memory is built from `settings`. A backfill passes `work`, its own settings, a range of offsets and
        optionally `prepared`: the answers of a batch about its contents."""
        self._settings = settings
        self._manager = ReleaseManager(settings)
        self._probe = Probe(self._ask)
        self._running: asyncio.Task[None] | None = None
        given = work or settings
        # A backfill keeps its versions on a separate topic.
        self._all_settings = (settings, given)
        key = settings.llm.api_key
        offered = Offered(key.get_secret_value() if key else None)
        self._prepared = prepared or offered
        self.worker = Worker(given, TagProcessor(given, self, offered=offered.offer), self._gate, read_range)

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[Outcome]:
        """Tag by the active release. Valid only once the gate has opened."""
        outcomes = await self._manager.tag(contents, until)
        self._probe.answered()
        return outcomes

    def revision(self) -> Hashable | None:
        """Revision of the active release and its memory."""
        return self._manager.revision()

    def notes(self) -> list[str]:
        """Warnings of a worker that is ready."""
        return self._manager.notes()

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """SIGTERM and SIGINT: drain; a second one: stop immediately."""
        self.worker.stop()

    def not_live(self) -> list[str]:
        """Problems of the poll loop."""
        if self.worker.alive():
            return []
        return [f"the poll loop has been stalled for {self._settings.health.stall_seconds:.0f} s"]

    def not_ready(self) -> list[str]:
        """Problems of the assignment, the encoder or the memory."""
        wrong = self.worker.problems()
        if not wrong and not self.worker.ready():
            wrong.append("no partitions assigned, or a dependency is down")
        wrong += filter(None, (self._probe.problem(), self._manager.problem()))
        return wrong

    async def _ask(self, text: str) -> str:
        """Tag one content, up to the last stage that costs nothing but CPU."""
        (answer,) = await self.tag([Content(id="tagbus-readyz", title=text)], FREE)
        return str(answer.error) if isinstance(answer, Failure) else ""

    async def _gate(self) -> None:
        """Return once the memory of the active release is complete. It keeps following its topics until the loop ends.

        Raises UserError for a topic that must be compacted but is not.
        """
        await asyncio.to_thread(require_compacted, self._all_settings)
        self._running = asyncio.create_task(self._run())
        self._running.add_done_callback(self._on_end)
        waiting = asyncio.create_task(self._manager.opened.wait())
        await asyncio.wait({self._running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._running.done():
            self._running.result()
        self._probe.open(asyncio.get_running_loop())

    async def _run(self) -> None:
        async with spending.spending(self._settings, self.worker.share) as meter:
            await self._manager.run(Given(meter, self._prepared))

    def _on_end(self, running: "asyncio.Task[None]") -> None:
        """Fail the worker: a memory that no longer follows its topics would tag with a stale taxonomy."""
        if not running.cancelled() and (error := running.exception()) is not None:
            self.worker.fail(error)
