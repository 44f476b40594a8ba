"""Poison isolation: an outcome for each content of a batch, even where the tagger fails on the batch.

A batch waits for a dependency that is down. After any other failure the batch is split in halves to find the contents
that fail alone. They are rejected only if a known-good content, the canary, passes before and after: if it fails too,
the fault is not in the contents, and the batch waits for that as well.
"""

import asyncio
import logging
import time
import traceback
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tagbus.stream import telemetry
from tagbus.stream.bus.processor import Stall
from tagbus.stream.config import RetrySettings
from tagbus.stream.contract.events import Content, TaggedContent
from tagbus.stream.errors import Fatal, FieldError, Poison, Retryable, Untaggable, UserError, shorten
from tagbus.stream.retry import backoff
from tagbus.stream.tagger import Delayed, Failure, Outcome

log = logging.getLogger(__name__)

CANARY = Content(id="tagbus-canary", title="Introduction to economics", text="A textbook for students.")

# `_call` waits for a dependency that is down; a wrong setting (a key that the store refuses) and a fatal failure end
# the worker. None of them says anything about a content.
ENDS = (Retryable, Fatal, UserError)

# The last stage that costs only this machine's time: the canary goes no further.
FREE = "rank"


class BatchTagger(Protocol):
    """The tagger as the bus uses it."""

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[Outcome]:
        """One outcome per content, in order; `until` names the last stage to run. Raises Retryable if a dependency is
        down."""
        ...

    def revision(self) -> Hashable | None:
        """Everything besides the content that its result depends on. Equal as long as none of it has changed.

        None if that is not known, for instance while a release is being replaced. Never raises: it is called outside
        of PoisonIsolation, where an error would end the worker.
        """
        ...


@dataclass(frozen=True, slots=True)
class Rejected:
    """A content that can never be tagged, the reason, and the number of calls in which it failed."""

    error: Poison
    attempts: int


Tagged = TaggedContent | Rejected


class PoisonIsolation:
    """The contents of one batch. `run` is called once."""

    def __init__(self, tagger: BatchTagger, settings: RetrySettings, stall: Stall) -> None:
        """`stall` is called with True when the batch starts to wait for a dependency, with False when it resumes."""
        self._tagger = tagger
        self._settings = settings
        self._stall = stall
        self._delays = backoff(settings)
        self._stalled = False
        self._broken = ""

    async def run(self, contents: Sequence[Content]) -> Sequence[Tagged]:
        """One outcome per content, in order. Waits without limit: cancel it to give up.

        For n contents of which k are bad the tagger is called at most k (2 log2(n) + 1) + 4 times, log2 rounded up,
        unless a dependency is down or contents are delayed. Raises Fatal and UserError when the tagger does.
        """
        try:
            outcomes = await self._decide(contents, 1)
            if any(type(outcome) is Rejected for outcome in outcomes):
                outcomes = await self._confirm(contents, outcomes)
            return outcomes
        finally:
            self._resume()

    async def _decide(self, contents: Sequence[Content], attempt: int) -> list[Tagged]:
        """The outcomes of contents. Those that the tagger delays are tagged again after the delay, without their
        neighbours."""
        found: dict[int, Tagged] = {}
        due: dict[int, float] = {}
        indexes: Sequence[int] = range(len(contents))
        while True:
            outcomes = await self._split([contents[index] for index in indexes], attempt)
            done = [outcome for outcome in outcomes if not isinstance(outcome, Delayed)]
            if len(done) == len(contents):
                return done
            now = time.monotonic()
            for index, outcome in zip(indexes, outcomes, strict=True):
                if isinstance(outcome, Delayed):
                    due[index] = now + outcome.seconds
                    log.info("tag: a content is delayed: seconds=%.2f reason=%s", outcome.seconds, outcome.reason)
                else:
                    found[index] = outcome
            if not due:
                return [found[index] for index in range(len(contents))]
            await asyncio.sleep(max(0.0, min(due.values()) - time.monotonic()))
            now = time.monotonic()
            indexes = [index for index, moment in due.items() if moment <= now]
            for index in indexes:
                del due[index]

    async def _split(self, contents: Sequence[Content], attempt: int) -> Sequence[Tagged | Delayed]:
        """Tag contents; if that fails, each half of them."""
        if not contents:
            return []
        try:
            return [
                Rejected(outcome.error, attempt) if isinstance(outcome, Failure) else outcome
                for outcome in await self._call(contents)
            ]
        except ENDS:
            raise
        except Exception as error:
            if len(contents) == 1:
                return [Rejected(_untaggable(contents[0], error), attempt)]
            if attempt == 1:
                log.warning("tag: contents=%d failed, splitting the batch: error=%s", len(contents), _where(error))
                # Do not search while everything fails.
                await self._until_sound()
        middle = len(contents) // 2
        left = await self._split(contents[:middle], attempt + 1)
        return [*left, *await self._split(contents[middle:], attempt + 1)]

    async def _confirm(self, contents: Sequence[Content], outcomes: Sequence[Tagged]) -> list[Tagged]:
        """Retry each rejected content alone, until the canary passes before and after: that rules out an outage that
        began or ended in between."""
        found = list(outcomes)
        while suspects := [(index, one) for index, one in enumerate(found) if isinstance(one, Rejected)]:
            await self._until_sound()
            for index, one in suspects:
                found[index : index + 1] = await self._decide([contents[index]], one.attempts + 1)
            if await self._passes():
                break
        return found

    async def _until_sound(self) -> None:
        while not await self._passes():
            await self._wait(f"not even a known-good content passes: {self._broken}")

    async def _passes(self) -> bool:
        """Whether the canary passes."""
        while True:
            try:
                (outcome,) = await self._call([CANARY], FREE)
            except ENDS:
                raise
            except Exception as error:
                self._broken = _where(error)
                return False
            if not isinstance(outcome, Delayed):
                break
            await asyncio.sleep(outcome.seconds)
        self._broken = _where(outcome.error) if isinstance(outcome, Failure) else ""
        return not self._broken

    async def _call(self, contents: Sequence[Content], until: str | None = None) -> Sequence[Outcome]:
        """Call the tagger, again while a dependency is down."""
        while True:
            try:
                outcomes = await self._tagger.tag(contents, until)
            except Retryable as error:
                await self._wait(f"{type(error).__name__}: {error}")
                continue
            if len(outcomes) != len(contents):
                raise RuntimeError(f"the tagger returned {len(outcomes)} outcomes for {len(contents)} contents")
            if self._stalled and any(isinstance(outcome, TaggedContent) for outcome in outcomes):
                self._resume()
            return outcomes

    async def _wait(self, reason: str) -> None:
        self._stalled = True
        self._stall(True)
        delay = next(self._delays)
        telemetry.RETRIES.labels(step="tag").inc()
        log.warning("tag: retry_in=%.2fs reason=%s", delay, reason)
        await asyncio.sleep(delay)

    def _resume(self) -> None:
        if self._stalled:
            self._stalled = False
            self._delays = backoff(self._settings)
            self._stall(False)


def _untaggable(content: Content, error: Exception) -> Poison:
    if isinstance(error, Poison):
        return error
    found = f"content {shorten(content.id)}"
    short = f"{type(error).__name__}: {shorten(str(error), 200)}"
    return Untaggable("tag", (FieldError("content", found, f"a content that the tagger takes ({short})"),))


def _where(error: Exception) -> str:
    """Type and location of an unexpected error, for the log. Its text may quote a content, which the log must not."""
    frames = traceback.extract_tb(error.__traceback__)
    line = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{line}"
