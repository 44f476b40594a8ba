"""The tagging processor: each record of `content` becomes tags, a withdrawal, a skipped duplicate or a dead letter.

A batch is first classified record by record: a record that cannot be decoded is a dead letter, and so is one older than
the published version of its content (`versions`); a duplicate may be skipped (`duplicates`). The other contents are
tagged together (`isolation`), and their results are serialized. Kafka is not called here.

Decoding and serializing run on the loop thread for each record and are most of what a content costs: run
`bench/bus.py` before you add to them.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic, time

from tagbus.stream import telemetry
from tagbus.stream.bus.process.dead_letters import REPLAY_SOURCE, RETAG, DeadLetterTopic, PoisonShare, too_large
from tagbus.stream.bus.process.duplicates import Duplicates, Seen, TaggedOutcome
from tagbus.stream.bus.process.isolation import BatchTagger, PoisonIsolation, Rejected, Tagged
from tagbus.stream.bus.process.observed import DriftWatch, count, observed, path_of
from tagbus.stream.bus.process.stamps import Stamp, stale, stamp, withdrawal
from tagbus.stream.bus.process.version_topic import VersionTopic
from tagbus.stream.bus.process.versions import BatchClaims
from tagbus.stream.bus.processor import Batch, Outgoing, Processor, RecordOutcome, Source, Stall, WorkerTopics
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import SOURCE_HEADERS, Tombstone, decode_content
from tagbus.stream.contract.events import Content, Exemplar, TaggedContent, exemplar_key
from tagbus.stream.contract.fields import blank
from tagbus.stream.contract.registry import Schemas
from tagbus.stream.errors import Poison
from tagbus.stream.kafka.message import Partition
from tagbus.stream.llm.batch.answers import JUDGED
from tagbus.stream.tagger.work import HIERARCHY
from tagbus.stream.telemetry import traces

Headers = tuple[tuple[str, bytes | None], ...]
Offer = Callable[[bytes | None], None]

_OFFSET = SOURCE_HEADERS[2]
# Headers of contents that a person sends again: they are tagged again.
_SENT_AGAIN = frozenset({RETAG, REPLAY_SOURCE})


@dataclass(slots=True)
class BatchState:
    """A batch while it is processed. Indexes are positions of records in the batch."""

    batch: Batch
    claims: BatchClaims
    # The tagger's revision before the batch is tagged; None where it is not known, or duplicates are not skipped.
    revision: Hashable | None
    # The headers of every record, without its offset.
    headers: Headers
    outcomes: dict[int, RecordOutcome] = field(default_factory=dict)
    # The contents for the tagger, in order: index, content, and its duplicate record.
    indexes: list[int] = field(default_factory=list)
    contents: list[Content] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    withdrawals: dict[int, Tombstone] = field(default_factory=dict)
    # Contents whose result Kafka refused.
    refused: dict[int, Content] = field(default_factory=dict)
    # Contents' own times, in Unix seconds.
    times: dict[int, float] = field(default_factory=dict)

    def headers_of(self, source: Source) -> Headers:
        """Where a result comes from: topic, partition and offset."""
        return (*self.headers, (_OFFSET, b"%d" % source.offset))

    def time_of(self, index: int, source: Source) -> float | None:
        """The content's own time, or its record's."""
        return self.times.get(index, source.timestamp)


def topics_of(settings: Settings) -> WorkerTopics:
    """The topics of a worker that tags."""
    topics = settings.topics
    state = (topics.versions,) if settings.triage.versions else ()
    return WorkerTopics(topics.content, (topics.tagged, topics.exemplars, topics.feedback), topics.dead_letters, state)


class TagProcessor(Processor):
    """Contents to tags."""

    def __init__(
        self,
        settings: Settings,
        tagger: BatchTagger,
        versions: VersionTopic | None = None,
        offered: Offer | None = None,
    ) -> None:
        """`offered` receives an LLM batch's answer about a content, where its event carries one."""
        topics = settings.topics
        self.topics = topics_of(settings)
        self._settings = settings
        self._tagger = tagger
        self._least = settings.tagger.write_back
        self._limit = settings.batch.record_bytes
        self._dead_letters = DeadLetterTopic(topics.dead_letters, settings.batch.record_bytes)
        self._versions = versions or VersionTopic(settings)
        self._offered = offered
        self._schemas = Schemas(settings.registry, topics)
        self._duplicates = Duplicates()
        self._skip = settings.triage.duplicates == "skip"
        self._share = PoisonShare(settings.triage)
        self._drift = DriftWatch(settings.drift)

    def prepare(self) -> None:
        """Register the schemas of results. Raises UserError, and DependencyDown when the registry does not answer."""
        self._schemas.register()

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Read the published versions of assigned partitions, in a separate thread."""
        self._versions.assign(partitions)

    def ready(self, partition: Partition) -> bool:
        """Whether they are read. Raises the error that prevented it."""
        return self._versions.ready(partition)

    def problem(self) -> str:
        """Which partitions the topic of published versions lacks."""
        return self._versions.problem()

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """Forget the versions of revoked partitions."""
        self._versions.revoke(partitions)

    def close(self) -> None:
        """End the threads that read versions."""
        self._versions.close()

    async def process(self, batch: Batch, stall: Stall) -> list[RecordOutcome]:
        """Tag a batch (Processor.process). Raises Fatal when the tagger does."""
        state = self._state(batch)
        with _timed("decode"):
            for index, source in enumerate(batch.sources):
                self._classify(state, index, source)
        with _timed("tag"):
            results: Sequence[Tagged] = ()
            if state.contents:
                results = await PoisonIsolation(self._tagger, self._settings.retry, stall).run(state.contents)
                self._drift.look(state.contents, results)
            await state.claims.wait()
        with _timed("serialize"):
            self._expire(state, results)
            for index, content, seen, result in zip(state.indexes, state.contents, state.seen, results, strict=True):
                state.outcomes[index] = self._outcome(state, index, content, seen, result)
            for index, content in state.refused.items():
                state.outcomes[index] = self._refused(state, index, content)
            for index, tombstone in state.withdrawals.items():
                state.outcomes[index] = self._withdrawal(state, index, tombstone)
        state.claims.close()
        return [state.outcomes[index] for index in range(len(batch.sources))]

    def published(self, batch: Batch, outcomes: Sequence[RecordOutcome]) -> None:
        """Learn from a committed batch. Raises TooMuchPoison."""
        self._versions.committed(batch, outcomes)
        tagged = [outcome for outcome in outcomes if isinstance(outcome, TaggedOutcome)]
        for outcome in tagged:
            outcome.seen.published = True
        count([outcome.observed for outcome in tagged])
        self._share.count(outcomes)

    def _state(self, batch: Batch) -> BatchState:
        values = (batch.partition[0].encode(), b"%d" % batch.partition[1])
        revision = self._tagger.revision() if self._skip else None
        headers = tuple(zip(SOURCE_HEADERS, values, strict=False))
        return BatchState(batch, self._versions.open(batch), revision, headers)

    def _classify(self, state: BatchState, index: int, source: Source) -> None:
        """Give a record its outcome if that needs no tagger; else queue its content."""
        try:
            event = decode_content(source.record)
        except Poison as error:
            state.outcomes[index] = self._dead_letters.letter(source, error)
            return
        if isinstance(event, Tombstone):
            self._withdraw(state, index, source, event)
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
        before = self._duplicates.before(event, state.batch)
        if before is not None and self._skipped(state, index, source, before):
            if index in state.claims.pending:
                state.claims.decide(index, passes=True)
            state.outcomes[index] = RecordOutcome("duplicate", (), "", state.time_of(index, source))
            return
        if self._offered is not None:
            for name, value in source.record.headers:
                if name == JUDGED:
                    self._offered(value)
        state.indexes.append(index)
        state.contents.append(event)
        if state.batch.trace is not None:
            state.batch.trace.named(index, event.id)
        state.seen.append(self._duplicates.come(event, state.batch, state.revision))

    def _skipped(self, state: BatchState, index: int, source: Source, before: Seen) -> bool:
        """Count a duplicate; True if it can be skipped because it would get the tags already published."""
        if any(name in _SENT_AGAIN for name, _ in source.record.headers):
            return False
        telemetry.DUPLICATES.inc()
        unchanged = state.revision is not None and before.revision == state.revision
        return unchanged and not state.claims.contested(index)

    def _expire(self, state: BatchState, results: Sequence[Tagged]) -> None:
        """Do not let duplicates be skipped on the strength of a degraded result, or of one during which something
        changed."""
        changed = state.revision is not None and self._tagger.revision() != state.revision
        for seen, result in zip(state.seen, results, strict=True):
            if changed or isinstance(result, Rejected) or result.degraded:
                seen.revision = None

    def _outcome(self, state: BatchState, index: int, content: Content, seen: Seen, result: Tagged) -> RecordOutcome:
        source, claimed = state.batch.sources[index], index in state.claims.pending
        topic = self._settings.topics.tagged
        value = b"" if isinstance(result, Rejected) else self._schemas.encode(topic, result)
        if len(value) > self._limit:
            limit = f"at most batch.record_bytes = {self._limit}"
            result = Rejected(too_large(topic, len(value), limit), 1)
        if isinstance(result, Rejected):
            if claimed:
                state.claims.decide(index, passes=False)
            return self._dead_letters.letter(source, result.error, result.attempts)
        if claimed and (newer := state.claims.decide(index, passes=True)):
            return self._stale(source, content, state.claims.stamp(index), newer)
        headers = state.headers_of(source)
        # Without a trace or headers there is nothing to carry.
        traced = state.batch.trace is not None or source.record.headers
        carried = (*headers, *_carried(state.batch, index, topic)) if traced else headers
        outgoing: tuple[Outgoing, ...] = (Outgoing(topic, source.record.key or content.id.encode(), value, carried),)
        if self._least is not None:
            outgoing = (*outgoing, *self._write_back(content, result, headers, self._least))
        if claimed:
            stamped = state.claims.stamp(index)
            outgoing = (*outgoing, self._versions.record(outgoing[0].key, stamped, source.partition, headers))
        return TaggedOutcome(
            "tagged",
            outgoing,
            "",
            state.time_of(index, source),
            path=path_of(result),
            seen=seen,
            observed=observed(result),
        )

    def _refused(self, state: BatchState, index: int, content: Content) -> RecordOutcome:
        """A dead letter for a result that Kafka refuses. At least once, its version may be on the topic already, so the
        published version is written after it."""
        source = state.batch.sources[index]
        letter = self._dead_letters.letter(source, state.batch.refused[index])
        if index in state.claims.pending:
            newest = state.claims.newest(index)
            headers = state.headers_of(source)
            version = self._versions.record(content.id.encode(), newest, source.partition, headers)
            letter.outgoing = (*letter.outgoing, version)
        return letter

    def _write_back(
        self, content: Content, result: TaggedContent, headers: Headers, least: float
    ) -> tuple[Outgoing, ...]:
        """A confident result as a machine's exemplar (LLM4Tag: final tags become deterministic edges)."""
        # An implied tag is implied for its neighbours too.
        found = [tag for tag in result.tags if tag.stage != HIERARCHY]
        accepted = tuple(tag.id for tag in found if tag.confidence >= least)
        # JSON takes up to 6 bytes a character, and the encoder reads only the beginning.
        text = content.text[: self._limit // 8]
        if not accepted or (blank(content.title) and blank(text)):
            return ()
        exemplar = Exemplar(
            id=content.id,
            source="machine",
            title=content.title,
            text=text,
            accepted=accepted,
            time=content.time or datetime.now(UTC),
            scopes=content.scopes,
        )
        topic = self._settings.topics.exemplars
        return (Outgoing(topic, exemplar.key.encode(), self._schemas.encode(topic, exemplar), headers),)

    def _withdraw(self, state: BatchState, index: int, source: Source, tombstone: Tombstone) -> None:
        if (refused := state.batch.refused.get(index)) is not None:
            state.outcomes[index] = self._dead_letters.letter(source, refused)
            return
        self._duplicates.forget(tombstone.key)
        state.claims.withdraw(index, tombstone.key, withdrawal(source.timestamp, time()))
        state.withdrawals[index] = tombstone

    def _withdrawal(self, state: BatchState, index: int, tombstone: Tombstone) -> RecordOutcome:
        """Nulls for the content's tags and both of its exemplars, and the stamp now in force: a later event that is not
        newer is stale. The null on `feedback` makes the joiner forget people's decisions; the exemplar leaves memory
        without waiting for that."""
        source = state.batch.sources[index]
        topics, key, headers = self._settings.topics, tombstone.key.encode(), state.headers_of(source)
        keys = (
            (topics.tagged, key),
            (topics.exemplars, exemplar_key(tombstone.key, "people").encode()),
            (topics.exemplars, exemplar_key(tombstone.key, "machine").encode()),
            (topics.feedback, key),
        )
        outgoing = tuple(Outgoing(topic, one, None, headers) for topic, one in keys)
        if in_force := state.claims.withdrawn(index):
            outgoing = (*outgoing, self._versions.record(key, in_force, source.partition, headers))
        return RecordOutcome("withdrawn", outgoing, "", source.timestamp)

    def _stale(self, source: Source, content: Content, claimed: Stamp, newer: Stamp) -> RecordOutcome:
        return self._dead_letters.letter(source, stale(content.id, claimed, newer))


def _carried(batch: Batch, index: int, topic: str) -> Headers:
    """The `traceparent` of a result: that of its send where that is traced, else the producer's."""
    headers = None if batch.trace is None else batch.trace.headers(index, topic)
    if headers is None:
        producer = traces.parent_of(batch.sources[index].record.headers)
        return () if producer is None else producer.headers
    return headers


@contextmanager
def _timed(step: str) -> Iterator[None]:
    start = monotonic()
    with traces.step(step):
        yield
    telemetry.BATCH_SECONDS.labels(step=step).observe(monotonic() - start)
