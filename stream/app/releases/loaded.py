"""One release in this worker: its tagger, its calibrations, and its batches in flight."""

import asyncio
import logging
from collections.abc import Hashable, Iterator, Mapping, Sequence

from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.calibrate import Calibration
from tagbus.stream.config import RetrySettings
from tagbus.stream.contract.events import Content, Versions
from tagbus.stream.contract.release import Curve, ReleaseRecord
from tagbus.stream.errors import DependencyDown
from tagbus.stream.index.bootstrap import Follower
from tagbus.stream.index.shared import SharedMemory
from tagbus.stream.retry import backoff
from tagbus.stream.tagger import Outcome, Tagger

log = logging.getLogger(__name__)

# Backoff between attempts to load: each attempt reads the model and the memory again.
RETRY = RetrySettings(first_seconds=10.0, cap_seconds=300.0)


class LoadedRelease:
    """A release, from the first attempt to load it until it is dropped. It tags once its memory has caught up."""

    def __init__(self, name: str, record: ReleaseRecord | None, calibrations: Mapping[str, Curve]) -> None:
        """`record`: None for the release of encoder.folder. `calibrations`: those on the topic for this release, by
        path."""
        self.name = name
        self.record = record
        self.calibrations = calibrations
        self.problem = ""
        # Set when loading may begin. At startup the other releases wait until one is active. A release that failed to
        # load is retried immediately, without backoff, when it is to become active.
        self.turn = asyncio.Event()
        self.delays = backoff(RETRY)
        self.task: asyncio.Task[None] | None = None
        self.stack: TaggingStack | None = None
        self.source: Follower | SharedMemory | None = None
        self._tagger: Tagger | None = None
        # A new object at each activation, for `revision`.
        self._activation = object()
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def ready(self) -> bool:
        """Whether it can tag."""
        return self._tagger is not None

    def activate(self) -> None:
        """Make the tagger, or rebuild it with other calibrations."""
        if self.stack is None or self.source is None:
            return
        self._tagger = self.stack.tagger(fitting(self.stack, self.calibrations), self.source.taxonomy)
        self._activation = object()
        self.problem = ""
        self.delays = backoff(RETRY)

    async def deactivate(self) -> None:
        """Accept no further batch, and drain those in flight."""
        self._tagger = self.stack = self.source = None
        await self._idle.wait()

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[Outcome]:
        """As `Tagger.tag`. Raises DependencyDown before the memory has caught up."""
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
        """As `Tagger.versions`. Raises DependencyDown before the memory has caught up."""
        return self._active_tagger().versions()

    def revision(self) -> Hashable | None:
        """Release, calibrations and applied offsets (isolation.BatchTagger.revision)."""
        source = self.source
        return None if self._tagger is None or source is None else (self._activation, source.applied())

    def memory_problem(self) -> str:
        """Why its memory must not be used for tagging; empty if it may be. An error that ends the follower of an
        in-process memory ends the worker, so only a shared memory can have a problem."""
        return self.source.problem() if isinstance(self.source, SharedMemory) else ""

    def state(self) -> str:
        """Why it is not ready, for people."""
        if self.problem:
            return self.problem
        if problem := self.memory_problem():
            return problem
        left = 0 if self.source is None else self.source.remaining()
        return f"its memory has {left} offsets left to read" if left else "its memory is not built yet"

    def _active_tagger(self) -> Tagger:
        if self._tagger is None:
            raise DependencyDown("the memory is not built yet")
        return self._tagger


def fitting(stack: TaggingStack, calibrations: Mapping[str, Curve]) -> Iterator[Calibration]:
    """The calibrations on the topic that are fitted to the scores of this stack. Other paths use those of the
    settings."""
    for path, curve in calibrations.items():
        expected = stack.fingerprint(path)
        if curve.fingerprint == expected:
            yield Calibration(**curve.model_dump())
            continue
        log.warning(
            "release %s: calibration %s is not used: it is fitted to %s, and this is %s",
            stack.release.name,
            curve.name,
            curve.fingerprint,
            expected,
        )
