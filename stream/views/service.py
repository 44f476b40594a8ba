"""`tagbus views` as a service: Faust and the API in one event loop, with liveness and readiness."""

import asyncio
import logging
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tagbus.stream.config import Settings
from tagbus.stream.config.base.environment import variable_of
from tagbus.stream.errors import DependencyDown, Fatal, TagbusError, UserError
from tagbus.stream.views.api import Api
from tagbus.stream.views.application import Views
from tagbus.stream.views.topics import require_topics

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.5
# How long Faust may take to finish its batches, commit and leave the group.
STOP_SECONDS: Final = 30.0


class ViewsService:
    """Runs the views until it is cancelled."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._views: Views | None = None
        self._turned = time.monotonic()

    async def run(self) -> None:
        """Raises UserError as `require_topics`, `Views` and `Api` do, and for a folder that takes no files;
        DependencyDown if the brokers stay away, and Fatal for a failure of Faust."""
        partitions = await asyncio.to_thread(require_topics, self._settings)
        with ExitStack() as stack:
            views = self._views = Views(self._settings, self._folder(stack), partitions)
            api = Api(views, self._settings.views)
            await api.start()
            starting = asyncio.create_task(views.app.start())
            try:
                await self._watch(views, starting)
            finally:
                await api.close()
                await self._stop(views, starting)

    def not_live(self) -> list[str]:
        """Liveness problems: those of the event loop."""
        stall = self._settings.health.stall_seconds
        if time.monotonic() - self._turned <= stall:
            return []
        return [f"the loop has not turned for {stall:.0f} s"]

    def not_ready(self) -> list[str]:
        """Readiness problems: those of the views. A replica without partitions is ready: it forwards requests to the
        others."""
        return [] if self._views is not None and self._views.settled else ["the views are not restored yet"]

    def _folder(self, stack: ExitStack) -> Path:
        folder = self._settings.views.folder
        if folder is None:
            return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tagbus-views-")))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # A folder that takes no files would end Faust, when it opens its tables.
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError as error:
            words = f"{variable_of('views.folder')}={folder}: {error.strerror}; expected a writable folder"
            raise UserError(words) from None

    async def _watch(self, views: Views, starting: "asyncio.Task[None]") -> None:
        while True:
            self._turned = time.monotonic()
            views.turn()
            if starting.done() and (error := starting.exception()) is not None:
                raise _failure(error)
            if (problem := views.problem) is not None:
                raise _failure(problem)
            await asyncio.sleep(TICK_SECONDS)

    async def _stop(self, views: Views, starting: "asyncio.Task[None]") -> None:
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await views.app.stop()
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
        except TimeoutError:
            log.warning("views: Faust did not stop within %.0f s; uncommitted records are read again", STOP_SECONDS)
        except Exception as error:
            # What ended it may end its stop too: the producer raises again what it could not send.
            log.warning("views: Faust did not stop cleanly; uncommitted records are read again: %s", error)


def _failure(error: BaseException) -> TagbusError:
    """The exit error of the process."""
    if isinstance(error, TagbusError):
        return error
    words = f"{type(error).__name__}: {error}"
    if "Authorization" in words:
        return UserError(f"views: Kafka refuses it, grant what docs/operator.md lists for them: {words}")
    if "MessageSizeTooLarge" in words:
        return Fatal(
            "views: a record is larger than the brokers take: lower views.contents and views.together, or raise "
            f"max.message.bytes of the views' topics (`tagbus topics create --views --mend`): {words}"
        )
    if type(error).__module__.startswith("aiokafka") or "ConsumerStopped" in words:
        return DependencyDown(f"views: {words}")
    if type(error).__name__ == "ConsistencyError":
        return Fatal(
            "views: the tables in views.folder are ahead of their changelogs, which were recreated: delete the folder"
        )
    return Fatal(f"views: {words}")
