"""Properties of every outcome, for any record."""

import asyncio
import hashlib
from collections.abc import Sequence

from tagbus.stream.bus.process.tag_processor import TagProcessor
from tagbus.stream.bus.processor import Batch, RecordOutcome, Source
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record, decode_tagged, read_dead_letter, read_source

PLACE = ("content", 3)
# Of a record without its value: key, headers and the reason. Kafka's default takes 1,048,588 bytes in all.
RECORD_BYTES = 1_048_588


def processed(processor: TagProcessor, records: Sequence[Record], first: int) -> list[RecordOutcome]:
    """The outcomes of records, the first of which has this offset."""
    sources = tuple(Source(*PLACE, first + index, record) for index, record in enumerate(records))
    return asyncio.run(processor.process(Batch(PLACE, 1, sources, 0, 0.0), lambda _: None))


def complaints(settings: Settings, record: Record, offset: int, outcome: RecordOutcome) -> list[str]:
    """The faults of an outcome; empty if none."""
    main = [out for out in outcome.outgoing if out.topic in {settings.topics.tagged, settings.topics.dead_letters}]
    if len(main) != 1:
        return [f"{len(main)} records go out for one"]
    (out,) = main
    found = []
    if (origin := read_source(out.headers)).offset != offset:
        found.append(f"it says that it comes from offset {origin.offset}, not {offset}")
    size = len(out.key or b"") + len(out.value or b"") + sum(len(n.encode()) + len(v or b"") for n, v in out.headers)
    if size > RECORD_BYTES:
        found.append(f"a record of {size} bytes goes out")
    match outcome.kind:
        case "tagged":
            decode_tagged(Record(out.key, out.value))
        case "withdrawn" if record.value is not None or out.value is not None or out.key != record.key:
            found.append("a withdrawal of something else")
        case "dead_lettered":
            read_dead_letter(out.headers)
            if not same(record, Record(out.key, out.value, out.headers)):
                found.append("its key or value has changed")
    return found


def same(record: Record, letter: Record) -> bool:
    """Whether a dead letter has its record's value and key, byte for byte; for a cut one, the beginning and the hash of
    the whole."""
    headers = dict(letter.headers)
    pairs = ((record.value, letter.value, "value"), (record.key, letter.key, "key"))
    return all(_kept(given, kept, headers.get(f"tagbus.{name}.sha256")) for given, kept, name in pairs)


def _kept(given: bytes | None, kept: bytes | None, digest: bytes | None) -> bool:
    if digest is None or given is None or kept is None:
        return given == kept
    return given.startswith(kept) and hashlib.sha256(given).hexdigest().encode() == digest
