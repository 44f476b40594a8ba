"""The releases that a worker has loaded, one of which is active: a new encoder goes live without a restart.

Each release has an encoder, a memory that follows its topics, and a tagger. When the topic `releases` names another
active release and that one's memory has caught up, one reference is replaced: the next batch is tagged by the new
release, batches in flight finish with the old one. The old one keeps following its topics, so going back is immediate.
"""

import asyncio
import logging
import traceback
from collections.abc import Hashable, Sequence
from contextlib import suppress

from tagbus.stream import telemetry
from tagbus.stream.app import assemble
from tagbus.stream.app.judge.judging import NOTHING, Given
from tagbus.stream.app.places import folders
from tagbus.stream.app.releases import collection, recorded
from tagbus.stream.app.releases.loaded import LoadedRelease
from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Content, Versions
from tagbus.stream.contract.release import ReleaseRecord
from tagbus.stream.encoder.release import load_release
from tagbus.stream.errors import DependencyDown, MemoryLost, ReleaseMismatch, Retryable, TagbusError
from tagbus.stream.index import snapshot
from tagbus.stream.index.bootstrap import Follower, Offsets
from tagbus.stream.index.releases import ReleaseFollower, Releases
from tagbus.stream.index.shared import SharedMemory
from tagbus.stream.memory.kinds import KINDS
from tagbus.stream.tagger import Outcome

log = logging.getLogger(__name__)

REPORT_SECONDS = 5.0


class ReleaseManager:
    """Loads all releases of the topic `releases` and tags with the active one: that of encoder.folder until the topic
    names one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._plan = assemble.Plan()
        self._base = ""
        self._releases = Releases()
        self._loaded: dict[str, LoadedRelease] = {}
        self._active: LoadedRelease | None = None
        self._tasks: asyncio.TaskGroup | None = None
        # The start gate: set once a release is active.
        self.opened = asyncio.Event()

    async def run(self, given: Given = NOTHING) -> None:
        """Keep the releases of the topic loaded, until cancelled. `given`: for the judges of all releases.

        Raises the failure of the active release, and at startup that of the release that is to become active:
        ReleaseMismatch, MemoryLost, DependencyDown, UserError. The failure of any other release is logged and retried
        with backoff, as is a dependency that goes down under the active release.
        """
        self._plan = assemble.Plan(given=given)
        self._base = (await asyncio.to_thread(load_release, folders.model_folder(self._settings))).name
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(ReleaseFollower(self._settings, self._on_change).run())
            self._tasks.create_task(self._report())

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[Outcome]:
        """Tag by the active release. Raises DependencyDown while there is none."""
        return await self._active_release().tag(contents, until)

    def versions(self) -> Versions:
        """Versions of the active release. Raises DependencyDown while there is none."""
        return self._active_release().versions()

    def revision(self) -> Hashable | None:
        """Revision of the active release; None while there is none or it is being replaced."""
        return None if self._active is None else self._active.revision()

    def problem(self) -> str:
        """Why the memory of the active release must not be used for tagging; empty if it may be."""
        return "" if self._active is None else self._active.memory_problem()

    def notes(self) -> list[str]:
        """Warnings of a ready worker: it still tags with a release other than the one that should be active."""
        if self._active is None or self._active.name == self._target:
            return []
        return [self._waiting(self._active)]

    @property
    def _target(self) -> str:
        """The name of the release that should be active."""
        return self._releases.active.release if self._releases.active else self._base

    def _active_release(self) -> LoadedRelease:
        if self._active is None:
            raise DependencyDown("the memory is not built yet")
        return self._active

    def _waiting(self, active: LoadedRelease) -> str:
        loaded = self._loaded.get(self._target)
        state = "it is not loaded" if loaded is None else loaded.state()
        return f"release {self._target} is active, but this worker still tags with {active.name}: {state}"

    def _on_change(self, releases: Releases) -> None:
        self._releases = releases
        for name, loaded in list(self._loaded.items()):
            self._renew(loaded, releases.records.get(name))
            self._recalibrate(loaded)
        for name in sorted({*releases.records, self._target} - self._loaded.keys()):
            self._load(name)
        self._loaded[self._target].turn.set()
        self._swap()
        if self._active is not None and (notes := self.notes()):
            log.warning("%s", notes[0])

    def _renew(self, loaded: LoadedRelease, record: ReleaseRecord | None) -> None:
        """Reload a release whose record has changed."""
        if record is None or record == loaded.record:
            return
        if loaded.record is None:
            loaded.record = record
        elif loaded is self._active:
            log.error("release %s: its record changed while it is active; the change is ignored", loaded.name)
        else:
            self._drop(loaded)

    def _recalibrate(self, loaded: LoadedRelease) -> None:
        """Apply changed calibrations, from the next batch on."""
        calibrations = self._releases.calibrations_of(loaded.name)
        if calibrations != loaded.calibrations:
            loaded.calibrations = calibrations
            if loaded.ready:
                loaded.activate()
                self._show()

    def _show(self) -> None:
        """Name the active release and its calibration in the metrics."""
        if self._active is not None and self._active.ready:
            versions = self._active.versions()
            telemetry.RELEASE.info({"release": versions.release, "calibration": versions.calibration})

    def _load(self, name: str) -> None:
        assert self._tasks is not None  # noqa: S101 - `run` has begun
        loaded = LoadedRelease(name, self._releases.records.get(name), self._releases.calibrations_of(name))
        self._loaded[name] = loaded
        if self._active is not None:
            loaded.turn.set()
        loaded.task = self._tasks.create_task(self._supervise(loaded))

    def _drop(self, loaded: LoadedRelease) -> None:
        del self._loaded[loaded.name]
        if loaded.task is not None:
            # Only after the loop has released the task: its cancellation references everything that the task held.
            loop = asyncio.get_running_loop()
            loaded.task.add_done_callback(lambda _: loop.call_soon(collection.free_dropped))
            loaded.task.cancel()

    def _swap(self) -> None:
        """Make the target active if it is ready, and drop releases that are no longer on the topic."""
        target = self._loaded.get(self._target)
        if target is not None and target.ready and target is not self._active:
            log.info("release %s is active%s", target.name, f" instead of {self._active.name}" if self._active else "")
            self._active = target
            self._show()
            self.opened.set()
            for loaded in self._loaded.values():
                loaded.turn.set()
        telemetry.RELEASE_PENDING.set(self._active is not None and self._active.name != self._target)
        for loaded in list(self._loaded.values()):
            if loaded is not self._active and loaded.name not in {*self._releases.records, self._target}:
                self._drop(loaded)
        telemetry.RELEASES_LOADED.set(len(self._loaded))

    async def _supervise(self, loaded: LoadedRelease) -> None:
        """Load it, retrying after each failure, until cancelled. A failing release must not end the active one."""
        while True:
            await loaded.turn.wait()
            await self._attempt(loaded)
            loaded.turn.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(next(loaded.delays)):
                    await loaded.turn.wait()
            loaded.turn.set()

    async def _attempt(self, loaded: LoadedRelease) -> None:
        """Run it until it fails, then free everything that this attempt made, which may be gigabytes."""
        try:
            await self._run_loaded(loaded)
        except Exception as error:
            first = _first(error)
            if self._ends(loaded, first):
                raise
            loaded.problem = f"{type(first).__name__}: {first}"
            trace = None if isinstance(first, TagbusError) else first
            log.warning("release %s is not loaded: %s", loaded.name, loaded.problem, exc_info=trace)
            _clear(error)

    def _ends(self, loaded: LoadedRelease, error: Exception) -> bool:
        """Whether its failure ends the worker: no other release tags, and it is no outage of a dependency."""
        if self._active is None:
            return loaded.name == self._target
        return loaded is self._active and not isinstance(error, Retryable)

    async def _run_loaded(self, loaded: LoadedRelease) -> None:
        settings = await asyncio.to_thread(self._own, loaded)
        async with assemble.opened(settings, self._plan) as stack:
            resume: Offsets | None = None
            if settings.memory.kind != "server" and (kept := folders.snapshot_folder(settings, loaded.name)):
                resume = await snapshot.load(kept, stack.memories, settings)
            if resume is not None:
                source = Follower(settings, stack.projection(), resume)
                try:
                    await self._follow(loaded, stack, source)
                except* MemoryLost as lost:
                    if source.ready.is_set():
                        raise
                    log.warning("release %s: its snapshot is not used, reading all: %s", loaded.name, _first(lost))
            await self._follow(loaded, stack, _source(settings, stack))

    def _own(self, loaded: LoadedRelease) -> Settings:
        """The settings of this release, its files verified. Raises ReleaseMismatch, which names the differing file."""
        if loaded.record is None and loaded.name != self._base:
            raise ReleaseMismatch(f"release {loaded.name} is active, but not on topic {self._settings.topics.releases}")
        return recorded.own(self._settings, loaded.name, loaded.record)

    async def _follow(
        self, loaded: LoadedRelease, stack: assemble.TaggingStack, source: Follower | SharedMemory
    ) -> None:
        loaded.stack, loaded.source = stack, source
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(source.run())
                await source.ready.wait()
                collection.settle()
                loaded.activate()
                self._swap()
        finally:
            await loaded.deactivate()

    async def _report(self) -> None:
        """Log the progress of the memory until the gate opens, then keep the gauges up to date."""
        while not self.opened.is_set():
            loaded = self._loaded.get(self._target)
            left = 0 if loaded is None or loaded.source is None else loaded.source.remaining()
            telemetry.MEMORY_REMAINING.set(left)
            # 0 while the end of the topics is not known yet.
            if left:
                log.info("start gate: %d offsets of the memory topics left to read", left)
            # Not wait_for: in Python 3.11 it loses a cancellation that arrives together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(REPORT_SECONDS):
                    await self.opened.wait()
        telemetry.MEMORY_REMAINING.set(0)
        while True:
            try:
                await self._measure()
            except Retryable as error:
                # A stale gauge is no reason to end the worker: batches wait for the store, and readiness reports it.
                log.warning("memory gauges are not updated: %s", error)
            await asyncio.sleep(REPORT_SECONDS)

    async def _measure(self) -> None:
        if self._active is not None and self._active.source is not None:
            telemetry.MEMORY_AGE.set(self._active.source.age())
        for name, kind in KINDS.items():
            # Looked up each time: a swap may have closed the memory of the previously active release.
            if self._active is not None and self._active.stack is not None:
                kind.gauge.set(await self._active.stack.memory.stores[name].count())


def _source(settings: Settings, stack: assemble.TaggingStack) -> Follower | SharedMemory:
    """The follower that fills the memory from the beginning of its topics, or the view of another process's memory."""
    if settings.memory.kind != "server":
        return Follower(settings, stack.projection())
    return SharedMemory(settings, stack.memories, stack.changes())


def _first(error: Exception) -> Exception:
    """The first error of a task group."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _clear(error: BaseException) -> None:
    """Clear the frames of an error, its causes and its parts, which keep their local variables alive."""
    for one in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        _clear(one)
    for behind in (error.__cause__, error.__context__):
        if behind is not None:
            _clear(behind)
    traceback.clear_frames(error.__traceback__)
    error.__traceback__ = error.__cause__ = error.__context__ = None
