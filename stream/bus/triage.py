"""What becomes of each record of a batch: tags, a withdrawal, or a dead letter. Kafka is not asked here.

Errors are sorted by kind: what cannot be decoded never could be; a dependency that is down is waited for, with the
partition held; what fails where its neighbours or a known-good content pass is set aside; anything else fails for
every content, so it is not the contents that are bad, and it is waited for too.
"""

import asyncio
import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import Protocol

from tagbus.stream import telemetry
from tagbus.stream.bus.deadletter import dead_letter, too_large
from tagbus.stream.bus.flight import Batch, Flight, Outgoing, Source, Verdict
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Tombstone, decode_content, encode, source_headers
from tagbus.stream.contract.events import Content, Exemplar, TaggedContent, exemplar_key
from tagbus.stream.errors import Complaint, Fatal, Poison, Retryable, Untaggable, shorten
from tagbus.stream.retry import backoff
from tagbus.stream.tagger import Failure

log = logging.getLogger(__name__)

# How often a content is tried alone before it is set aside.
ATTEMPTS = 3
# Tagged where all contents of a batch fail alone: if it passes, they are the reason.
CANARY = Content(id="tagbus-canary", title="Introduction to economics", text="A textbook for students.")

Stall = Callable[[bool], None]


class BatchTagger(Protocol):
    """What the bus needs of the tagger."""

    async def tag(self, contents: Sequence[Content]) -> list[TaggedContent | Failure]:
        """Results or failures, same length and order. Raises Retryable when a dependency is down."""
        ...


class _Broken(Exception):
    """The tagger fails whatever it is given."""


class Triage:
    """Batches in, verdicts out; several at once."""

    def __init__(self, settings: Settings, tagger: BatchTagger) -> None:
        self._settings = settings
        self._tagger = tagger

    async def judge(self, batch: Batch, stall: Stall) -> list[Verdict]:
        """One verdict for each record, in order. Waits for dependencies as long as it takes: cancel it to give up.

        `stall` is told when the batch begins and ends to wait for one. Raises Fatal when the tagger does.
        """
        verdicts: dict[int, Verdict] = {}
        valid: list[tuple[int, Content]] = []
        with _timed("decode"):
            for index, source in enumerate(batch.sources):
                event = self._decode(source)
                if isinstance(event, Content):
                    valid.append((index, event))
                else:
                    verdicts[index] = event
        with _timed("tag"):
            outcomes = await self._tag([content for _, content in valid], stall) if valid else []
        with _timed("encode"):
            for (index, content), (outcome, attempts) in zip(valid, outcomes, strict=True):
                verdicts[index] = self._verdict(batch.sources[index], content, outcome, attempts)
        return [verdicts[index] for index in range(len(batch.sources))]

    def published(self, flight: Flight) -> None:
        """A batch of verdicts is committed. Called from the publish thread."""

    def _decode(self, source: Source) -> Content | Verdict:
        try:
            event = decode_content(source.record)
        except Poison as error:
            return dead_letter(self._settings, source, error)
        return self._withdrawal(source, event) if isinstance(event, Tombstone) else event

    async def _tag(self, contents: Sequence[Content], stall: Stall) -> list[tuple[TaggedContent | Poison, int]]:
        """An outcome and the number of attempts for each content; waits while nothing can be tagged."""
        delays = backoff(self._settings.retry)
        try:
            while True:
                try:
                    return await self._try(contents)
                except (Retryable, _Broken) as error:
                    stall(True)
                    delay = next(delays)
                    telemetry.RETRIES.labels(step="tag").inc()
                    log.warning(
                        "tag: contents=%d retry_in=%.2fs error=%s: %s",
                        len(contents),
                        delay,
                        type(error).__name__,
                        error,
                    )
                    await asyncio.sleep(delay)
        finally:
            stall(False)

    async def _try(self, contents: Sequence[Content]) -> list[tuple[TaggedContent | Poison, int]]:
        try:
            return [(outcome, 1) for outcome in await self._call(contents)]
        except (Retryable, Fatal):
            raise
        except Exception as error:
            log.warning("tag: contents=%d failed, each is tried alone: error=%s", len(contents), _where(error))
            return await self._singly(contents, error)

    async def _singly(self, contents: Sequence[Content], error: Exception) -> list[tuple[TaggedContent | Poison, int]]:
        """Each content alone. Raises _Broken when not even the canary passes."""
        outcomes = [await self._alone(content) for content in contents]
        if all(isinstance(outcome, Exception) for outcome, _ in outcomes):
            try:
                await self._call([CANARY])
            except (Retryable, Fatal):
                raise
            except Exception as canary:
                raise _Broken(f"not even a known-good content passes: {_where(canary)}") from error
        return [
            (_untaggable(content, outcome) if not isinstance(outcome, TaggedContent | Poison) else outcome, attempts)
            for content, (outcome, attempts) in zip(contents, outcomes, strict=True)
        ]

    async def _alone(self, content: Content) -> tuple[TaggedContent | Poison | Exception, int]:
        failure: Exception = RuntimeError("not tried")
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return (await self._call([content]))[0], attempt
            except (Retryable, Fatal):
                raise
            except Exception as error:
                failure = error
        return failure, ATTEMPTS

    async def _call(self, contents: Sequence[Content]) -> list[TaggedContent | Poison]:
        outcomes = await self._tagger.tag(contents)
        if len(outcomes) != len(contents):
            raise RuntimeError(f"the tagger returned {len(outcomes)} outcomes for {len(contents)} contents")
        return [outcome.error if isinstance(outcome, Failure) else outcome for outcome in outcomes]

    def _verdict(self, source: Source, content: Content, outcome: TaggedContent | Poison, attempts: int) -> Verdict:
        if isinstance(outcome, Poison):
            return dead_letter(self._settings, source, outcome, attempts)
        value, limit = encode(outcome), self._settings.batch.record_bytes
        if len(value) > limit:
            error = too_large(self._settings.topics.tagged, len(value), f"at most batch.record_bytes = {limit}")
            return dead_letter(self._settings, source, error)
        headers = tuple(source_headers(source.topic, source.partition, source.offset))
        result = Outgoing(self._settings.topics.tagged, content.id.encode(), value, headers)
        return Verdict("tagged", (result, *self._write_back(content, outcome, headers)))

    def _write_back(
        self, content: Content, result: TaggedContent, headers: tuple[tuple[str, bytes | None], ...]
    ) -> tuple[Outgoing, ...]:
        """A confident result as a machine's exemplar (LLM4Tag: final tags become deterministic edges)."""
        least = self._settings.tagger.write_back
        if least is None:
            return ()
        accepted = tuple(tag.id for tag in result.tags if tag.confidence >= least)
        if not accepted:
            return ()
        exemplar = Exemplar(
            id=content.id,
            source="machine",
            title=content.title,
            # JSON takes up to 6 bytes a character, and the encoder reads the beginning only.
            text=content.text[: self._settings.batch.record_bytes // 8],
            accepted=accepted,
            time=content.time or datetime.now(UTC),
        )
        return (Outgoing(self._settings.topics.exemplars, exemplar.key.encode(), encode(exemplar), headers),)

    def _withdrawal(self, source: Source, tombstone: Tombstone) -> Verdict:
        """Nulls for the content's tags and for both of its exemplars."""
        headers = tuple(source_headers(source.topic, source.partition, source.offset))
        topics = self._settings.topics
        keys = (
            (topics.tagged, tombstone.key),
            (topics.exemplars, exemplar_key(tombstone.key, "people")),
            (topics.exemplars, exemplar_key(tombstone.key, "machine")),
        )
        return Verdict("withdrawn", tuple(Outgoing(topic, key.encode(), None, headers) for topic, key in keys))


def _untaggable(content: Content, error: Exception) -> Untaggable:
    found = f"content {shorten(content.id)}"
    return Untaggable("tag", (Complaint("content", found, f"a content that the tagger takes ({_short(error)})"),))


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {shorten(str(error), 200)}"


def _where(error: Exception) -> str:
    """An unexpected error as the log shows it: kind and place. Its text may quote a content, and the log must not."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


@contextmanager
def _timed(step: str) -> Iterator[None]:
    start = monotonic()
    yield
    telemetry.BATCH_SECONDS.labels(step=step).observe(monotonic() - start)
