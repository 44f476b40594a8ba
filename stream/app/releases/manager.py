"""The releases that a worker holds at once, of which one tags: how a new encoder goes live without a restart.

Each has an encoder, a memory that follows its topics, and a tagger of its own. When `releases` says that another is
active and that one has caught up, one reference is replaced: the next batch is tagged by it, batches in flight finish
by the one that they began with. The old one goes on following, so it can be made active again at once.
"""

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Hashable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from tagbus.stream import telemetry
from tagbus.stream.app import assemble, folders
from tagbus.stream.app.releases import collection
from tagbus.stream.calibrate import Calibration
from tagbus.stream.config import RetrySettings, Settings
from tagbus.stream.contract.events import Content, Versions
from tagbus.stream.contract.release import Curve, ReleaseRecord
from tagbus.stream.encoder.release import load_recorded, load_release
from tagbus.stream.errors import DependencyDown, MemoryLost, ReleaseMismatch, Retryable, TagbusError
from tagbus.stream.index import snapshot
from tagbus.stream.index.bootstrap import Follower, Offsets
from tagbus.stream.index.releases import ReleaseFollower, Releases
from tagbus.stream.index.write import Progress, SharedMemory
from tagbus.stream.memory.kinds import KINDS
from tagbus.stream.retry import backoff
from tagbus.stream.tagger import Outcome, Tagger

log = logging.getLogger(__name__)

REPORT_SECONDS = 5.0
# How long a release that could not be loaded waits: each attempt reads its model and its memory again.
RETRY = RetrySettings(first_seconds=10.0, cap_seconds=300.0)


class LoadedRelease:
    """One release in this worker. It tags once it has caught up."""

    def __init__(self, name: str, record: ReleaseRecord | None, calibrations: Mapping[str, Curve]) -> None:
        """`calibrations`: what the topic has of this release, by path."""
        self.name = name
        self.record = record
        self.calibrations = calibrations
        self.problem = ""
        # Set when it may begin: at a start those that are not to be in force wait until one is. One that failed begins
        # again when it is to be in force, without a wait.
        self.turn = asyncio.Event()
        self.delays = backoff(RETRY)
        self.task: asyncio.Task[None] | None = None
        self.stack: assemble.TaggingStack | None = None
        self.source: Follower | SharedMemory | None = None
        self._tagger: Tagger | None = None
        # Another one for each calibration that it is given.
        self._activation = object()
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def ready(self) -> bool:
        """Whether it can tag."""
        return self._tagger is not None

    def activate(self) -> None:
        """Tag from now on, or with another calibration from now on."""
        if self.stack is None or self.source is None:
            return
        self._tagger = self.stack.tagger(self._curves(self.stack), self.source.taxonomy)
        self._activation = object()
        self.problem = ""
        self.delays = backoff(RETRY)

    def _curves(self, stack: assemble.TaggingStack) -> Iterator[Calibration]:
        """The topic's calibrations that are fitted to the scores of this stack; the settings have one for the rest."""
        for path, curve in self.calibrations.items():
            if curve.fingerprint == (expected := stack.fingerprint(path)):
                yield Calibration(**curve.model_dump())
            else:
                told = (self.name, curve.name, curve.fingerprint, expected)
                log.warning("release %s: calibration %s is not used: it is fitted to %s, and this is %s", *told)

    async def deactivate(self) -> None:
        """Tag no more, and wait for the batches in flight."""
        self._tagger = self.stack = self.source = None
        await self._idle.wait()

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[Outcome]:
        """The tagger's."""
        tagger = self._active_tagger()
        self._calls += 1
        self._idle.clear()
        try:
            return await tagger.tag(contents, until)
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    def versions(self) -> Versions:
        """The tagger's."""
        return self._active_tagger().versions()

    def revision(self) -> Hashable | None:
        """Release, calibration and how far its memory is (isolation.BatchTagger)."""
        source = self.source
        return None if self._tagger is None or source is None else (self._activation, source.applied())

    def state(self) -> str:
        """Why it is not ready, for people."""
        if self.problem:
            return self.problem
        left = 0 if self.source is None else self.source.remaining()
        return f"its memory has {left} offsets to go" if left else "its memory is not built yet"

    def _active_tagger(self) -> Tagger:
        if self._tagger is None:
            raise DependencyDown("the memory is not built yet")
        return self._tagger


class ReleaseManager:
    """All releases of the topic `releases`, and the one in force; that of encoder.folder where none is active."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._base = ""
        self._releases = Releases()
        self._loaded: dict[str, LoadedRelease] = {}
        self._active: LoadedRelease | None = None
        self._tasks: asyncio.TaskGroup | None = None
        # Set once one is in force: the start gate.
        self.opened = asyncio.Event()

    async def run(self) -> None:
        """Hold what the topic says until cancelled.

        Raises what goes wrong with the release in force, and at the start with the one that is to be: ReleaseMismatch,
        MemoryLost, DependencyDown, UserError. Any other is only logged, and tried again; so is a dependency that goes
        down under the release in force.
        """
        self._base = (await asyncio.to_thread(load_release, folders.model_folder(self._settings))).name
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(ReleaseFollower(self._settings, self._on_change).run())
            self._tasks.create_task(self._report())

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[Outcome]:
        """By the release in force now. Raises DependencyDown while there is none."""
        return await self._active_release().tag(contents, until)

    def versions(self) -> Versions:
        """Of the release in force now."""
        return self._active_release().versions()

    def revision(self) -> Hashable | None:
        """Of the release in force now; None while there is none, or it is being replaced."""
        return None if self._active is None else self._active.revision()

    def notes(self) -> list[str]:
        """What an operator should know, though the worker tags: that another release is active than tags here."""
        if self._active is None or self._active.name == self._target:
            return []
        return [self._waiting(self._active)]

    @property
    def _target(self) -> str:
        """The release that is to be in force."""
        return self._releases.active.release if self._releases.active else self._base

    def _active_release(self) -> LoadedRelease:
        if self._active is None:
            raise DependencyDown("the memory is not built yet")
        return self._active

    def _waiting(self, active: LoadedRelease) -> str:
        loaded = self._loaded.get(self._target)
        state = "it is not loaded" if loaded is None else loaded.state()
        return f"release {self._target} is active, this worker goes on with {active.name}: {state}"

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
        """A record that has changed makes it another release."""
        if record is None or record == loaded.record:
            return
        if loaded.record is None:
            loaded.record = record
        elif loaded is self._active:
            log.error("release %s was recorded anew while it is in force: the change is ignored", loaded.name)
        else:
            self._drop(loaded)

    def _recalibrate(self, loaded: LoadedRelease) -> None:
        """Take over calibrations that have changed: the next batch is the first that they count for."""
        calibrations = self._releases.calibrations_of(loaded.name)
        if calibrations != loaded.calibrations:
            loaded.calibrations = calibrations
            if loaded.ready:
                loaded.activate()

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
            # Not before the loop has let go of the task, whose cancellation refers to all that it had.
            loop = asyncio.get_running_loop()
            loaded.task.add_done_callback(lambda _: loop.call_soon(collection.free_dropped))
            loaded.task.cancel()

    def _swap(self) -> None:
        """Put the release in force that is to be, if it is ready; let go of those that nobody wants any longer."""
        target = self._loaded.get(self._target)
        if target is not None and target.ready and target is not self._active:
            log.info(
                "release %s is in force%s", target.name, f" instead of {self._active.name}" if self._active else ""
            )
            self._active = target
            self.opened.set()
            for loaded in self._loaded.values():
                loaded.turn.set()
        telemetry.RELEASE_PENDING.set(self._active is not None and self._active.name != self._target)
        for loaded in list(self._loaded.values()):
            if loaded is not self._active and loaded.name not in {*self._releases.records, self._target}:
                self._drop(loaded)
        telemetry.RELEASES_LOADED.set(len(self._loaded))

    async def _supervise(self, loaded: LoadedRelease) -> None:
        """Hold it for as long as it is wanted. A release that fails must not take the one in force along."""
        while True:
            await loaded.turn.wait()
            await self._attempt(loaded)
            loaded.turn.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(next(loaded.delays)):
                    await loaded.turn.wait()
            loaded.turn.set()

    async def _attempt(self, loaded: LoadedRelease) -> None:
        """Hold it until it fails, and let go of all that this attempt made, which may be gigabytes."""
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
        """Whether the worker cannot go on: nothing else tags, and it is no outage under a release that tagged."""
        if self._active is None:
            return loaded.name == self._target
        return loaded is self._active and not isinstance(error, Retryable)

    async def _run_loaded(self, loaded: LoadedRelease) -> None:
        settings = await asyncio.to_thread(self._own, loaded)
        async with assemble.opened(settings) as stack:
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
                    log.warning("release %s: all is read, its snapshot is of no use: %s", loaded.name, _first(lost))
            async with _source(settings, stack) as whole:
                await self._follow(loaded, stack, whole)

    def _own(self, loaded: LoadedRelease) -> Settings:
        """The settings of this release, its files verified. Raises ReleaseMismatch that names the file that differs."""
        if loaded.record is None:
            if loaded.name != self._base:
                raise ReleaseMismatch(
                    f"release {loaded.name} is active, but it is not on topic {self._settings.topics.releases}"
                )
            return self._settings
        folder = folders.release_folder(self._settings, loaded.name)
        load_recorded(folder, loaded.record.release)
        return folders.settings_of(self._settings, folder, loaded.record.triton)

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
        """Say how far the memory is until the gate opens; then keep the gauges right."""
        while not self.opened.is_set():
            loaded = self._loaded.get(self._target)
            left = 0 if loaded is None or loaded.source is None else loaded.source.remaining()
            telemetry.MEMORY_REMAINING.set(left)
            # 0: where the topics end is not known yet.
            if left:
                log.info("start gate: %d offsets of the memory topics to go", left)
            # Not wait_for: in Python 3.11 it loses a cancellation that comes with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(REPORT_SECONDS):
                    await self.opened.wait()
        telemetry.MEMORY_REMAINING.set(0)
        while True:
            try:
                await self._measure()
            except Retryable as error:
                # A gauge that is old for a while is no reason to end: batches wait for the store, readiness says so.
                log.warning("the memory was not counted: %s", error)
            await asyncio.sleep(REPORT_SECONDS)

    async def _measure(self) -> None:
        for name, kind in KINDS.items():
            # Looked up each time: a swap may have closed the memory of the release that was in force.
            if self._active is not None and self._active.stack is not None:
                kind.gauge.set(await self._active.stack.memory.stores[name].count())


@asynccontextmanager
async def _source(settings: Settings, stack: assemble.TaggingStack) -> AsyncIterator[Follower | SharedMemory]:
    """What fills the memory from its beginning, or sees how far the indexer has filled it."""
    if settings.memory.kind != "server":
        yield Follower(settings, stack.projection())
        return
    progress = await asyncio.to_thread(Progress, settings, stack.release.name)
    try:
        yield SharedMemory(settings, progress, stack.changes())
    finally:
        await asyncio.to_thread(progress.close)


def _first(error: Exception) -> Exception:
    """What a task group met first."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _clear(error: BaseException) -> None:
    """Drop what the frames of an error, and of those in and behind it, hold on to."""
    for one in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        _clear(one)
    for behind in (error.__cause__, error.__context__):
        if behind is not None:
            _clear(behind)
    traceback.clear_frames(error.__traceback__)
    error.__traceback__ = error.__cause__ = error.__context__ = None
