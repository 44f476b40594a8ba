"""What becomes of each record of a batch: tags, a withdrawal, or a dead letter. Kafka is not asked here.

What cannot be decoded is set aside, and so is what is older than the published version of its content (`versions`).
What
came before is skipped where the setting says so (`duplicates`). The rest goes to the tagger (`trial`).

Decoding and writing run on the loop thread for each record, so they are most of what a content costs: see
`bench/bus.py` before you add to them.
"""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic

from tagbus.stream import telemetry
from tagbus.stream.bus.in_flight import Batch, InFlightBatch, Outgoing, RecordOutcome, Seen, Source
from tagbus.stream.bus.process.dead_letters import REPLAY_SOURCE, RETAG, PoisonShare, dead_letter, too_large
from tagbus.stream.bus.process.duplicates import Duplicates
from tagbus.stream.bus.process.isolation import BatchTagger, PoisonIsolation, Rejected, Stall, Tagged
from tagbus.stream.bus.process.version_topic import VersionTopic
from tagbus.stream.bus.process.versions import BatchClaims, Stamp, stale, stamp
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import SOURCE_HEADERS, Tombstone, decode_content
from tagbus.stream.contract.events import Content, Exemplar, TaggedContent, exemplar_key
from tagbus.stream.contract.registry import Schemas
from tagbus.stream.errors import Poison

Headers = tuple[tuple[str, bytes | None], ...]

_OFFSET = SOURCE_HEADERS[2]
_SENT_AGAIN = frozenset({RETAG, REPLAY_SOURCE})


@dataclass(slots=True)
class BatchState:
    """A batch as it is judged. `valid` are the places of the contents that go to the tagger, `seen` how each of them
    is remembered, `refused` the contents whose result Kafka does not take."""

    batch: Batch
    claims: BatchClaims
    # The tagger's, before the batch is tagged; None where it is not known, or not asked for.
    revision: Hashable | None
    # Of every record, but for its offset.
    headers: Headers
    outcomes: dict[int, RecordOutcome] = field(default_factory=dict)
    valid: list[int] = field(default_factory=list)
    contents: list[Content] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    refused: dict[int, Content] = field(default_factory=dict)
    # Contents' own times, in Unix seconds.
    times: dict[int, float] = field(default_factory=dict)

    def headers_of(self, source: Source) -> Headers:
        """The record that a result comes from."""
        return (*self.headers, (_OFFSET, b"%d" % source.offset))


class TagProcessor:
    """Batches in, verdicts out; several at once. `process` belongs to one loop, `published` to the publish thread."""

    def __init__(
        self,
        settings: Settings,
        tagger: BatchTagger,
        versions: VersionTopic | None = None,
        schemas: Schemas | None = None,
    ) -> None:
        """`versions`: the one whose `assign` and `revoke` the poll thread calls. `schemas`: how results are written."""
        self._settings = settings
        self._tagger = tagger
        self._topic = settings.topics.tagged
        self._least = settings.tagger.write_back
        self._limit = settings.batch.record_bytes
        self._versions = versions or VersionTopic(settings)
        self._schemas = schemas or Schemas(settings.registry, settings.topics)
        self._duplicates = Duplicates()
        self._skip = settings.triage.duplicates == "skip"
        self._share = PoisonShare(settings.triage)

    async def process(self, batch: Batch, stall: Stall) -> list[RecordOutcome]:
        """One verdict for each record, in order. Batches of a partition are begun in order of offsets.

        Waits for dependencies as long as it takes: cancel it to give up. `stall` is told when the batch begins and
        ends to wait for one. Raises Fatal when the tagger does.
        """
        state = self._state(batch)
        with _timed("decode"):
            for index, source in enumerate(batch.sources):
                self._decode(state, index, source)
        with _timed("tag"):
            results: Sequence[Tagged] = ()
            if state.contents:
                results = await PoisonIsolation(self._tagger, self._settings.retry, stall).run(state.contents)
            await state.claims.wait()
        with _timed("serialize"):
            self._settle(state, results)
            for index, content, result in zip(state.valid, state.contents, results, strict=True):
                state.outcomes[index] = self._outcome(state, index, content, result)
            for index, content in state.refused.items():
                state.outcomes[index] = self._refused(state, index, content)
            for index, seen in zip(state.valid, state.seen, strict=True):
                state.outcomes[index].seen = seen
        state.claims.close()
        return [state.outcomes[index] for index in range(len(batch.sources))]

    def published(self, entry: InFlightBatch) -> None:
        """A batch is committed. Raises TooMuchPoison."""
        self._versions.committed(entry)
        outcomes = entry.outcomes or ()
        for outcome in outcomes:
            if outcome.seen is not None:
                outcome.seen.published = outcome.kind == "tagged"
        self._share.count(outcomes)

    def _state(self, batch: Batch) -> BatchState:
        values = (batch.partition[0].encode(), b"%d" % batch.partition[1])
        revision = self._tagger.revision() if self._skip else None
        headers = tuple(zip(SOURCE_HEADERS, values, strict=False))
        return BatchState(batch, self._versions.open(batch), revision, headers)

    def _decode(self, state: BatchState, index: int, source: Source) -> None:
        """A verdict where the tagger is not needed, else a content for it."""
        try:
            event = decode_content(source.record)
        except Poison as error:
            state.outcomes[index] = dead_letter(self._settings, source, error)
            return
        if isinstance(event, Tombstone):
            refused = state.batch.refused.get(index)
            state.outcomes[index] = (
                self._withdrawal(state, index, source, event)
                if refused is None
                else dead_letter(self._settings, source, refused)
            )
            return
        if event.version is not None or event.time is not None:
            milliseconds = None
            if event.time is not None:
                state.times[index] = seconds = event.time.timestamp()
                milliseconds = round(seconds * 1000)
            claimed = stamp(event.version, milliseconds)
            newer = state.claims.add(index, event.id, claimed)
            if newer:
                state.outcomes[index] = self._stale(source, event, claimed, newer)
                return
        if index in state.batch.refused:
            if index in state.claims.pending:
                state.claims.refuse(index)
            state.refused[index] = event
            return
        if self._skipped(state, index, event, source):
            if index in state.claims.pending:
                state.claims.decide(index, passes=True)
            state.outcomes[index] = RecordOutcome("duplicate", (), "", state.times.get(index, source.timestamp))
            return
        state.valid.append(index)
        state.contents.append(event)
        state.seen.append(self._duplicates.come(event, state.batch, state.revision))

    def _skipped(self, state: BatchState, index: int, content: Content, source: Source) -> bool:
        """Whether a content needs no tags because it has them already. Counts it where it came before."""
        before = self._duplicates.before(content, state.batch)
        # What a person sends through again is to be tagged again.
        if before is None or any(name in _SENT_AGAIN for name, _ in source.record.headers):
            return False
        telemetry.DUPLICATES.inc()
        same = state.revision is not None and before.revision == state.revision
        return same and not state.claims.contested(index)

    def _settle(self, state: BatchState, results: Sequence[Tagged]) -> None:
        """A result that was made while anything changed, or without all that it should rest on, is of no revision."""
        changed = state.revision is not None and self._tagger.revision() != state.revision
        for seen, result in zip(state.seen, results, strict=True):
            if changed or isinstance(result, Rejected) or result.degraded:
                seen.revision = None

    def _outcome(self, state: BatchState, index: int, content: Content, result: Tagged) -> RecordOutcome:
        source, claimed = state.batch.sources[index], index in state.claims.pending
        if isinstance(result, Rejected):
            if claimed:
                state.claims.decide(index, passes=False)
            return dead_letter(self._settings, source, result.error, result.attempts)
        value = self._schemas.encode(self._topic, result)
        if len(value) > self._limit:
            error = too_large(self._topic, len(value), f"at most batch.record_bytes = {self._limit}")
            return self._outcome(state, index, content, Rejected(error, 1))
        if claimed and (newer := state.claims.decide(index, passes=True)):
            return self._stale(source, content, state.claims.stamp(index), newer)
        headers = state.headers_of(source)
        outgoing: tuple[Outgoing, ...] = (Outgoing(self._topic, content.id.encode(), value, headers),)
        if self._least is not None:
            outgoing = (*outgoing, *self._write_back(content, result, headers, self._least))
        if claimed:
            outgoing = (*outgoing, self._version(state, index, source, outgoing[0]))
        return RecordOutcome("tagged", outgoing, "", state.times.get(index, source.timestamp))

    def _refused(self, state: BatchState, index: int, content: Content) -> RecordOutcome:
        """A dead letter for a result that Kafka does not take. Without transactions its version may be out already, so
        the one that is published goes out behind it."""
        source = state.batch.sources[index]
        letter = dead_letter(self._settings, source, state.batch.refused[index])
        if index in state.claims.pending:
            newest = state.claims.newest(index)
            headers = state.headers_of(source)
            version = self._versions.record(content.id.encode(), newest, source.partition, headers)
            letter.outgoing = (*letter.outgoing, version)
        return letter

    def _version(self, state: BatchState, index: int, source: Source, result: Outgoing) -> Outgoing:
        """What version of its content a result is of, or that there is none any more."""
        return self._versions.record(result.key, state.claims.stamp(index), source.partition, result.headers)

    def _write_back(
        self, content: Content, result: TaggedContent, headers: Headers, least: float
    ) -> tuple[Outgoing, ...]:
        """A confident result as a machine's exemplar (LLM4Tag: final tags become deterministic edges)."""
        accepted = tuple(tag.id for tag in result.tags if tag.confidence >= least)
        if not accepted:
            return ()
        exemplar = Exemplar(
            id=content.id,
            source="machine",
            title=content.title,
            # JSON takes up to 6 bytes a character, and the encoder reads the beginning only.
            text=content.text[: self._limit // 8],
            accepted=accepted,
            time=content.time or datetime.now(UTC),
            scopes=content.scopes,
        )
        topic = self._settings.topics.exemplars
        return (Outgoing(topic, exemplar.key.encode(), self._schemas.encode(topic, exemplar), headers),)

    def _withdrawal(self, state: BatchState, index: int, source: Source, tombstone: Tombstone) -> RecordOutcome:
        """Nulls for the content's tags and for both of its exemplars. What comes later and is older stays withdrawn."""
        topics, key, headers = self._settings.topics, tombstone.key.encode(), state.headers_of(source)
        self._duplicates.forget(tombstone.key)
        keys = (
            (topics.tagged, key),
            (topics.exemplars, exemplar_key(tombstone.key, "people").encode()),
            (topics.exemplars, exemplar_key(tombstone.key, "machine").encode()),
        )
        outgoing = tuple(Outgoing(topic, one, None, headers) for topic, one in keys)
        if source.timestamp is not None:
            state.claims.withdraw(index, tombstone.key, stamp(None, round(source.timestamp * 1000)))
        if index in state.claims.pending:
            outgoing = (*outgoing, self._version(state, index, source, outgoing[0]))
        return RecordOutcome("withdrawn", outgoing, "", source.timestamp)

    def _stale(self, source: Source, content: Content, claimed: Stamp, newer: Stamp) -> RecordOutcome:
        return dead_letter(self._settings, source, stale(content.id, claimed, newer))


@contextmanager
def _timed(step: str) -> Iterator[None]:
    start = monotonic()
    yield
    telemetry.BATCH_SECONDS.labels(step=step).observe(monotonic() - start)
