"""What becomes of each record of a batch: tags, a withdrawal, or a dead letter. Kafka is not asked here.

What cannot be decoded is set aside, and so is what is older than the published version of its content (`order`). What
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
from tagbus.stream.bus.in_flight import Batch, InFlightBatch, Outgoing, Seen, Source, Verdict
from tagbus.stream.bus.process.dead_letters import REPLAY_SOURCE, RETAG, dead_letter, too_large
from tagbus.stream.bus.process.duplicates import Duplicates
from tagbus.stream.bus.process.isolation import Aside, BatchTagger, Outcome, Stall, Trial
from tagbus.stream.bus.process.share import PoisonShare
from tagbus.stream.bus.process.version_topic import Order
from tagbus.stream.bus.process.versions import Docket, Stamp, stale, stamp
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import SOURCE_HEADERS, Tombstone, decode_content
from tagbus.stream.contract.events import Content, Exemplar, TaggedContent, exemplar_key
from tagbus.stream.contract.registry import Schemas
from tagbus.stream.errors import Poison

Headers = tuple[tuple[str, bytes | None], ...]

_OFFSET = SOURCE_HEADERS[2]
_SENT_AGAIN = frozenset({RETAG, REPLAY_SOURCE})


@dataclass(slots=True)
class _Sheet:
    """A batch as it is judged. `valid` are the places of the contents that go to the tagger, `seen` how each of them
    is remembered, `refused` the contents whose result Kafka does not take."""

    batch: Batch
    docket: Docket
    # The tagger's, before the batch is tagged; None where it is not known, or not asked for.
    revision: Hashable | None
    # Of every record, but for its offset.
    headers: Headers
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    valid: list[int] = field(default_factory=list)
    contents: list[Content] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    refused: dict[int, Content] = field(default_factory=dict)
    # Contents' own times, in Unix seconds.
    times: dict[int, float] = field(default_factory=dict)

    def headers_of(self, source: Source) -> Headers:
        """The record that a result comes from."""
        return (*self.headers, (_OFFSET, b"%d" % source.offset))


class Triage:
    """Batches in, verdicts out; several at once. `judge` belongs to one loop, `published` to the publish thread."""

    def __init__(
        self, settings: Settings, tagger: BatchTagger, order: Order | None = None, schemas: Schemas | None = None
    ) -> None:
        """`order`: the one whose `assign` and `revoke` the poll thread calls. `schemas`: how results are written."""
        self._settings = settings
        self._tagger = tagger
        self._topic = settings.topics.tagged
        self._least = settings.tagger.write_back
        self._limit = settings.batch.record_bytes
        self._order = order or Order(settings)
        self._schemas = schemas or Schemas(settings.registry, settings.topics)
        self._duplicates = Duplicates()
        self._skip = settings.triage.duplicates == "skip"
        self._share = PoisonShare(settings.triage)

    async def judge(self, batch: Batch, stall: Stall) -> list[Verdict]:
        """One verdict for each record, in order. Batches of a partition are begun in order of offsets.

        Waits for dependencies as long as it takes: cancel it to give up. `stall` is told when the batch begins and
        ends to wait for one. Raises Fatal when the tagger does.
        """
        sheet = self._sheet(batch)
        with _timed("decode"):
            for index, source in enumerate(batch.sources):
                self._decode(sheet, index, source)
        with _timed("tag"):
            outcomes: Sequence[Outcome] = ()
            if sheet.contents:
                outcomes = await Trial(self._tagger, self._settings.retry, stall).run(sheet.contents)
            await sheet.docket.wait()
        with _timed("encode"):
            self._settle(sheet, outcomes)
            for index, content, outcome in zip(sheet.valid, sheet.contents, outcomes, strict=True):
                sheet.verdicts[index] = self._verdict(sheet, index, content, outcome)
            for index, content in sheet.refused.items():
                sheet.verdicts[index] = self._refused(sheet, index, content)
            for index, seen in zip(sheet.valid, sheet.seen, strict=True):
                sheet.verdicts[index].seen = seen
        sheet.docket.close()
        return [sheet.verdicts[index] for index in range(len(batch.sources))]

    def published(self, entry: InFlightBatch) -> None:
        """A batch is committed. Raises TooMuchPoison."""
        self._order.committed(entry)
        verdicts = entry.verdicts or ()
        for verdict in verdicts:
            if verdict.seen is not None:
                verdict.seen.published = verdict.outcome == "tagged"
        self._share.count(verdicts)

    def _sheet(self, batch: Batch) -> _Sheet:
        values = (batch.partition[0].encode(), b"%d" % batch.partition[1])
        revision = self._tagger.revision() if self._skip else None
        headers = tuple(zip(SOURCE_HEADERS, values, strict=False))
        return _Sheet(batch, self._order.open(batch), revision, headers)

    def _decode(self, sheet: _Sheet, index: int, source: Source) -> None:
        """A verdict where the tagger is not needed, else a content for it."""
        try:
            event = decode_content(source.record)
        except Poison as error:
            sheet.verdicts[index] = dead_letter(self._settings, source, error)
            return
        if isinstance(event, Tombstone):
            refused = sheet.batch.refused.get(index)
            sheet.verdicts[index] = (
                self._withdrawal(sheet, index, source, event)
                if refused is None
                else dead_letter(self._settings, source, refused)
            )
            return
        if event.version is not None or event.time is not None:
            milliseconds = None
            if event.time is not None:
                sheet.times[index] = seconds = event.time.timestamp()
                milliseconds = round(seconds * 1000)
            claimed = stamp(event.version, milliseconds)
            newer = sheet.docket.claim(index, event.id, claimed)
            if newer:
                sheet.verdicts[index] = self._stale(source, event, claimed, newer)
                return
        if index in sheet.batch.refused:
            if index in sheet.docket.claims:
                sheet.docket.refuse(index)
            sheet.refused[index] = event
            return
        if self._skipped(sheet, index, event, source):
            if index in sheet.docket.claims:
                sheet.docket.decide(index, passes=True)
            sheet.verdicts[index] = Verdict("duplicate", (), "", sheet.times.get(index, source.timestamp))
            return
        sheet.valid.append(index)
        sheet.contents.append(event)
        sheet.seen.append(self._duplicates.come(event, sheet.batch, sheet.revision))

    def _skipped(self, sheet: _Sheet, index: int, content: Content, source: Source) -> bool:
        """Whether a content needs no tags because it has them already. Counts it where it came before."""
        before = self._duplicates.before(content, sheet.batch)
        # What a person sends through again is to be tagged again.
        if before is None or any(name in _SENT_AGAIN for name, _ in source.record.headers):
            return False
        telemetry.DUPLICATES.inc()
        same = sheet.revision is not None and before.revision == sheet.revision
        return same and not sheet.docket.contested(index)

    def _settle(self, sheet: _Sheet, outcomes: Sequence[Outcome]) -> None:
        """A result that was made while anything changed, or without all that it should rest on, is of no revision."""
        changed = sheet.revision is not None and self._tagger.revision() != sheet.revision
        for seen, outcome in zip(sheet.seen, outcomes, strict=True):
            if changed or isinstance(outcome, Aside) or outcome.degraded:
                seen.revision = None

    def _verdict(self, sheet: _Sheet, index: int, content: Content, outcome: Outcome) -> Verdict:
        source, claimed = sheet.batch.sources[index], index in sheet.docket.claims
        if isinstance(outcome, Aside):
            if claimed:
                sheet.docket.decide(index, passes=False)
            return dead_letter(self._settings, source, outcome.error, outcome.attempts)
        value = self._schemas.encode(self._topic, outcome)
        if len(value) > self._limit:
            error = too_large(self._topic, len(value), f"at most batch.record_bytes = {self._limit}")
            return self._verdict(sheet, index, content, Aside(error, 1))
        if claimed and (newer := sheet.docket.decide(index, passes=True)):
            return self._stale(source, content, sheet.docket.stamp(index), newer)
        headers = sheet.headers_of(source)
        outgoing: tuple[Outgoing, ...] = (Outgoing(self._topic, content.id.encode(), value, headers),)
        if self._least is not None:
            outgoing = (*outgoing, *self._write_back(content, outcome, headers, self._least))
        if claimed:
            outgoing = (*outgoing, self._version(sheet, index, source, outgoing[0]))
        return Verdict("tagged", outgoing, "", sheet.times.get(index, source.timestamp))

    def _refused(self, sheet: _Sheet, index: int, content: Content) -> Verdict:
        """A dead letter for a result that Kafka does not take. Without transactions its version may be out already, so
        the one that is published goes out behind it."""
        source = sheet.batch.sources[index]
        letter = dead_letter(self._settings, source, sheet.batch.refused[index])
        if index in sheet.docket.claims:
            newest = sheet.docket.newest(index)
            headers = sheet.headers_of(source)
            version = self._order.record(content.id.encode(), newest, source.partition, headers)
            letter.outgoing = (*letter.outgoing, version)
        return letter

    def _version(self, sheet: _Sheet, index: int, source: Source, result: Outgoing) -> Outgoing:
        """What version of its content a result is of, or that there is none any more."""
        return self._order.record(result.key, sheet.docket.stamp(index), source.partition, result.headers)

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

    def _withdrawal(self, sheet: _Sheet, index: int, source: Source, tombstone: Tombstone) -> Verdict:
        """Nulls for the content's tags and for both of its exemplars. What comes later and is older stays withdrawn."""
        topics, key, headers = self._settings.topics, tombstone.key.encode(), sheet.headers_of(source)
        self._duplicates.forget(tombstone.key)
        keys = (
            (topics.tagged, key),
            (topics.exemplars, exemplar_key(tombstone.key, "people").encode()),
            (topics.exemplars, exemplar_key(tombstone.key, "machine").encode()),
        )
        outgoing = tuple(Outgoing(topic, one, None, headers) for topic, one in keys)
        if source.timestamp is not None:
            sheet.docket.withdraw(index, tombstone.key, stamp(None, round(source.timestamp * 1000)))
        if index in sheet.docket.claims:
            outgoing = (*outgoing, self._version(sheet, index, source, outgoing[0]))
        return Verdict("withdrawn", outgoing, "", source.timestamp)

    def _stale(self, source: Source, content: Content, claimed: Stamp, newer: Stamp) -> Verdict:
        return dead_letter(self._settings, source, stale(content.id, claimed, newer))


@contextmanager
def _timed(step: str) -> Iterator[None]:
    start = monotonic()
    yield
    telemetry.BATCH_SECONDS.labels(step=step).observe(monotonic() - start)
