"""`tagbus feedback` as a service: the joiner of people's decisions, with its liveness and readiness."""

import asyncio
import logging
from types import FrameType

from tagbus.stream.app.joining.recalibration import Recalibrator
from tagbus.stream.bus.process.join_processor import JoinProcessor
from tagbus.stream.bus.worker import Worker
from tagbus.stream.config import JOINER, Settings
from tagbus.stream.kafka.access import missing_rights
from tagbus.stream.kafka.admin.topics import require_compacted
from tagbus.stream.kafka.rights import Operation

log = logging.getLogger(__name__)

# Interval of log lines about waiting contents.
REPORT_SECONDS = 30.0


def joiner_settings(settings: Settings) -> Settings:
    """The settings of the joiner: a separate group and transactional id under the worker's prefixes, so that one ACL
    covers both and a joiner beside a worker does not fence it."""
    kafka = settings.kafka
    own = {"group": f"{kafka.group}{JOINER}", "transactional_id": f"{kafka.transactional_id}{JOINER}"}
    return settings.model_copy(update={"kafka": kafka.model_copy(update=own)})


class JoinService:
    """One joiner, built on the worker's loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = joiner_settings(settings)
        self._joiner = JoinProcessor(self._settings)
        self._tasks: list[asyncio.Task[None]] = []
        self.worker = Worker(self._settings, self._joiner, self._gate)

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """SIGTERM and SIGINT: drain; a second one: stop immediately."""
        self.worker.stop()

    def not_live(self) -> list[str]:
        """Problems of the poll loop."""
        if self.worker.alive():
            return []
        return [f"the poll loop has been stalled for {self._settings.health.stall_seconds:.0f} s"]

    def not_ready(self) -> list[str]:
        """Problems of the assignment or the topics."""
        wrong = self.worker.problems()
        if not wrong and not self.worker.ready():
            wrong.append("no partitions assigned, or no broker answers")
        return wrong

    def notes(self) -> list[str]:
        """Warnings about decisions that wait for a content's text."""
        waiting = self._joiner.waiting()
        return [f"{waiting} contents with decisions wait for their text"] if waiting else []

    async def _gate(self) -> None:
        """Check the topics. Raises UserError for one that must be compacted but is not, and for a right that only the
        first curve would need."""
        await asyncio.to_thread(require_compacted, [self._settings])
        if self._settings.feedback.calibrate_seconds:
            releases = self._settings.topics.releases
            operations: list[tuple[Operation, str]] = [("Read", releases), ("Write", releases)]
            if refused := await asyncio.to_thread(missing_rights, self._settings.kafka, operations):
                raise refused
        self._tasks.append(asyncio.create_task(self._report()))
        # Only one process at a time holds the first partition.
        calibrating = asyncio.create_task(Recalibrator(self._settings, lambda: self._joiner.owns(0)).run())
        calibrating.add_done_callback(self._on_end)
        self._tasks.append(calibrating)

    def _on_end(self, calibrating: "asyncio.Task[None]") -> None:
        if not calibrating.cancelled() and (error := calibrating.exception()) is not None:
            self.worker.fail(error)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            for note in self.notes():
                log.info("feedback: %s", note)
