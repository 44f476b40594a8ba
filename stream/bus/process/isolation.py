"""One batch at the tagger: what it gives for each content, whatever goes wrong.

A dependency that is down is waited for. What fails otherwise is searched for the contents that fail alone, by halves,
and those are set aside only between two passes of a known-good content, the canary: where that fails too it is not
the contents that are bad, and it is waited for as well.
"""

import asyncio
import logging
import traceback
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tagbus.stream import telemetry
from tagbus.stream.bus.processor import Stall
from tagbus.stream.config import RetrySettings
from tagbus.stream.contract.events import Content, TaggedContent
from tagbus.stream.errors import Fatal, FieldError, Poison, Retryable, Untaggable, shorten
from tagbus.stream.retry import backoff
from tagbus.stream.tagger import Delayed, Failure

log = logging.getLogger(__name__)

CANARY = Content(id="tagbus-canary", title="Introduction to economics", text="A textbook for students.")

# The last stage that costs nothing but this machine's time: the canary goes no further.
FREE = "rank"


class BatchTagger(Protocol):
    """What the bus needs of the tagger."""

    async def tag(
        self, contents: Sequence[Content], until: str | None = None
    ) -> list[TaggedContent | Failure | Delayed]:
        """Outcomes, same length and order; `until` names the last stage that runs. Raises Retryable when a dependency
        is down."""
        ...

    def revision(self) -> Hashable | None:
        """What the result of a content rests on besides the content: equal as long as nothing that could change it has.

        None where that is not known, as while a release is being replaced. Never raises: it is asked outside of
        `PoisonIsolation`, where an error would end the worker.
        """
        ...


@dataclass(frozen=True, slots=True)
class Rejected:
    """A content that can never be tagged, why, and in how many calls it failed."""

    error: Poison
    attempts: int


Tagged = TaggedContent | Rejected


class PoisonIsolation:
    """The contents of one batch. `run` is called once."""

    def __init__(self, tagger: BatchTagger, settings: RetrySettings, stall: Stall) -> None:
        """`stall` is told when the batch begins and ends to wait."""
        self._tagger = tagger
        self._settings = settings
        self._stall = stall
        self._delays = backoff(settings)
        self._stalled = False
        self._broken = ""

    async def run(self, contents: Sequence[Content]) -> Sequence[Tagged]:
        """An outcome for each content, in order. Waits as long as it takes: cancel it to give up.

        With n contents of which k are bad the tagger is called at most k (2 log2(n) + 1) + 4 times, log2 rounded up,
        if nothing else goes wrong. Raises Fatal when the tagger does.
        """
        try:
            outcomes = await self._split(contents, 1)
            if any(type(outcome) is Rejected for outcome in outcomes):
                outcomes = await self._confirm(contents, outcomes)
            return outcomes
        finally:
            self._go_on()

    async def _split(self, contents: Sequence[Content], attempt: int) -> Sequence[Tagged]:
        """Tag them; where that fails, each half of them."""
        try:
            return [
                Rejected(outcome.error, attempt) if isinstance(outcome, Failure) else outcome
                for outcome in await self._call(contents)
            ]
        except (Retryable, Fatal):
            raise
        except Exception as error:
            if len(contents) == 1:
                return [Rejected(_untaggable(contents[0], error), attempt)]
            if attempt == 1:
                log.warning("tag: contents=%d failed, searched by halves: error=%s", len(contents), _where(error))
                # Nothing is searched for while everything fails.
                await self._until_sound()
        middle = len(contents) // 2
        left = await self._split(contents[:middle], attempt + 1)
        return [*left, *await self._split(contents[middle:], attempt + 1)]

    async def _confirm(self, contents: Sequence[Content], outcomes: Sequence[Tagged]) -> list[Tagged]:
        """Try each that failed once more alone, until the canary passes both before and after: an outage that began or
        ended in between is none of theirs."""
        found = list(outcomes)
        while suspects := [(index, one) for index, one in enumerate(found) if isinstance(one, Rejected)]:
            await self._until_sound()
            for index, one in suspects:
                found[index : index + 1] = await self._split([contents[index]], one.attempts + 1)
            if await self._passes():
                break
        return found

    async def _until_sound(self) -> None:
        while not await self._passes():
            await self._wait(f"not even a known-good content passes: {self._broken}")

    async def _passes(self) -> bool:
        """Whether the canary does."""
        try:
            (outcome,) = await self._call([CANARY], FREE)
        except (Retryable, Fatal):
            raise
        except Exception as error:
            self._broken = _where(error)
            return False
        self._broken = _where(outcome.error) if isinstance(outcome, Failure) else ""
        return not self._broken

    async def _call(self, contents: Sequence[Content], until: str | None = None) -> Sequence[TaggedContent | Failure]:
        """One call, and another for the contents that it delays, when their time has come."""
        decided: dict[int, TaggedContent | Failure] = {}
        left = list(range(len(contents)))
        while left:
            outcomes = dict(zip(left, await self._once([contents[index] for index in left], until), strict=True))
            late = [one.seconds for one in outcomes.values() if isinstance(one, Delayed)]
            decided |= {index: one for index, one in outcomes.items() if not isinstance(one, Delayed)}
            left = [index for index in left if index not in decided]
            if late:
                await asyncio.sleep(min(late))
        return [decided[index] for index in range(len(contents))]

    async def _once(
        self, contents: Sequence[Content], until: str | None
    ) -> Sequence[TaggedContent | Failure | Delayed]:
        """One call, made again while a dependency is down."""
        while True:
            try:
                outcomes = await self._tagger.tag(contents, until)
            except Retryable as error:
                await self._wait(f"{type(error).__name__}: {error}")
                continue
            if len(outcomes) != len(contents):
                raise RuntimeError(f"the tagger returned {len(outcomes)} outcomes for {len(contents)} contents")
            if self._stalled and any(isinstance(outcome, TaggedContent) for outcome in outcomes):
                self._go_on()
            return outcomes

    async def _wait(self, reason: str) -> None:
        self._stalled = True
        self._stall(True)
        delay = next(self._delays)
        telemetry.RETRIES.labels(step="tag").inc()
        log.warning("tag: retry_in=%.2fs reason=%s", delay, reason)
        await asyncio.sleep(delay)

    def _go_on(self) -> None:
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
    """An unexpected error as the log shows it: kind and place. Its text may quote a content, and the log must not."""
    frames = traceback.extract_tb(error.__traceback__)
    partition = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{partition}"
