"""The records that the views read and write, and their grouping by partition."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from faust.types import EventT
from pydantic import TypeAdapter

from tagbus.stream import telemetry
from tagbus.stream.contract.codec import Record, Tombstone, decode_tagged
from tagbus.stream.contract.events import TaggedContent
from tagbus.stream.contract.fields import TEST_ID
from tagbus.stream.errors import Poison
from tagbus.stream.views.contents import Change

CHANGES: TypeAdapter[list[Change]] = TypeAdapter(list[Change])
# Records by partition, in order.
Groups = Mapping[int, Sequence[EventT[bytes]]]


def decoded(record: Record) -> TaggedContent | Tombstone | None:
    """The event of a record; None for one that is skipped."""
    if record.key is not None and record.key.startswith(TEST_ID.encode()):
        return None
    try:
        return decode_tagged(record)
    except Poison:
        telemetry.VIEWS_SKIPPED.inc()
        return None


def sliced(changes: Sequence[Change], size: int) -> Iterator[bytes]:
    """Changes of a tag as the values of records, in order: at most `size` bytes each, or a single change."""
    value = CHANGES.dump_json(list(changes))
    if len(value) <= size or len(changes) == 1:
        yield value
        return
    half = len(changes) // 2
    yield from sliced(changes[:half], size)
    yield from sliced(changes[half:], size)


def by_partition(events: Sequence[EventT[bytes]]) -> Groups:
    found: dict[int, list[EventT[bytes]]] = defaultdict(list)
    for event in events:
        found[event.message.partition].append(event)
    return found
