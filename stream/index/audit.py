"""Compare memory with its topics and repair it: points that are missing, stale, retired or foreign.

The topic is read twice, in chunks: first to find the last record of each key, then to compare those records with the
points. Then the points are listed to find those without a record. Vectors are not compared: they were encoded from the
text, whose hash is compared.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

from confluent_kafka import Message

from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Tombstone
from tagbus.stream.encoder.release import Release
from tagbus.stream.errors import Poison, TopicMissing
from tagbus.stream.index.apply import MemoryRecord, Projection
from tagbus.stream.index.latest import LastRecords, Latest
from tagbus.stream.kafka.message import offset_of, partition_of, record_of
from tagbus.stream.kafka.ranges import OffsetRange, current_range, read_range
from tagbus.stream.memory.kinds import KINDS, Entry, Kind
from tagbus.stream.memory.shared import SharedStore
from tagbus.stream.memory.store import RECORD, ListedStore, Payload, Source

# missing: a record without a point. stale: a point that differs from its record. retired: a point whose last record is
# a tombstone. foreign: a point without a record.
Fault = Literal["missing", "stale", "retired", "foreign"]

CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class Finding:
    """A point that differs from its topic. `key`: the key of the point, or its id if it has no key of tagbus."""

    kind: str
    fault: Fault
    key: str


class Audit:
    """Compares one kind of a memory with its topic."""

    def __init__(self, settings: Settings, kind: Kind, store: ListedStore, release: Release) -> None:
        """`release`: the release of the encoder that filled the store."""
        self._settings = settings
        self._kind = kind
        self._store = store
        self._release = release
        # Number of compared keys, for the report.
        self.compared = 0

    async def findings(self, repair: Projection | None = None) -> AsyncGenerator[Finding]:
        """Every fault; with a projection in `repair` each is repaired before it is yielded.

        Points that another process writes meanwhile, of records after the start, are not faults. Raises as `read_range`
        does, and DependencyDown.
        """
        try:
            wanted = await asyncio.to_thread(current_range, self._settings.kafka, self._topic)
        except TopicMissing:
            if not self._kind.optional:
                raise
            wanted = OffsetRange(self._topic, {}, {})
        latest = Latest()
        async for chunk in self._records(wanted):
            for found, item in chunk:
                latest.add(found.key, _source(item))
        lasts = await asyncio.to_thread(latest.settled)
        self.compared = len(lasts)
        async for chunk in self._records(wanted):
            some = [(found, item) for found, item in chunk if lasts.is_last(found.key, _source(item))]
            for one in await self._compared(some, repair):
                yield one
        async for one in self._foreign(lasts, wanted.ends, repair is not None):
            yield one

    @property
    def kind(self) -> str:
        """The name of the kind."""
        return self._kind.name

    @property
    def _topic(self) -> str:
        return self._kind.topic(self._settings.topics)

    async def _compared(
        self, records: Sequence[tuple[Entry | Tombstone, MemoryRecord]], repair: Projection | None
    ) -> list[Finding]:
        known = await self._store.fetch([found.key for found, _ in records])
        faults = [
            (Finding(self._kind.name, fault, found.key), item)
            for found, item in records
            if (fault := _fault(found, _source(item), known.get(found.key))) is not None
        ]
        if faults and repair is not None:
            await repair.apply([item for _, item in faults])
        return [finding for finding, _ in faults]

    async def _foreign(self, lasts: LastRecords, ends: Mapping[int, int], repaired: bool) -> AsyncGenerator[Finding]:  # noqa: FBT001 - not a choice of its caller
        async for page in self._store.pages():
            strange = [one.id for one in page if one.key is None]
            keys = [one.key for one in page if one.key is not None]
            unknown = [key for key, known in zip(keys, lasts.known(keys).tolist(), strict=True) if not known]
            stored = await self._store.fetch(unknown)
            gone = [key for key in unknown if not _is_later(stored.get(key, {}), ends)]
            if repaired:
                await self._store.remove(strange)
                if isinstance(self._store, SharedStore):
                    await self._store.sweep(gone, ends)
                else:
                    await self._store.delete(gone)
            for name in (*strange, *gone):
                yield Finding(self._kind.name, "foreign", name)

    async def _records(self, wanted: OffsetRange) -> AsyncIterator[list[tuple[Entry | Tombstone, MemoryRecord]]]:
        """The valid records of the range: an invalid one leaves its point unchanged."""
        messages = read_range(self._settings.kafka, wanted)
        while chunk := await asyncio.to_thread(lambda: list(islice(messages, CHUNK))):
            yield list(self._read(chunk))

    def _read(self, messages: Sequence[Message]) -> Iterator[tuple[Entry | Tombstone, MemoryRecord]]:
        for message in messages:
            number, offset = partition_of(message)[1], offset_of(message)
            source = Source(number, offset, message.timestamp()[1])
            item = MemoryRecord(self._kind.name, record_of(message), f"{self._topic}:{number}:{offset}", source)
            try:
                yield self._kind.read(item.record, self._release), item
            except Poison:
                continue


def audit(settings: Settings, kind: str, store: ListedStore, release: Release) -> Audit:
    """The audit of a kind by its name."""
    return Audit(settings, KINDS[kind], store, release)


def _fault(found: Entry | Tombstone, source: Source, stored: Payload | None) -> Fault | None:
    if stored is None:
        return None if isinstance(found, Tombstone) else "missing"
    written = Source.of(stored)
    if written is not None and written.is_newer(source):
        return None
    if isinstance(found, Tombstone):
        return "retired"
    return None if {**stored, RECORD: None} == {**found.payload, RECORD: None} else "stale"


def _is_later(stored: Payload, ends: Mapping[int, int]) -> bool:
    """Whether a point is of a record after these ends."""
    source = Source.of(stored)
    return source is not None and source.offset >= ends.get(source.partition, 0)


def _source(item: MemoryRecord) -> Source:
    if item.source is None:
        raise TypeError(f"{item.place} is not a position on a topic")
    return item.source
