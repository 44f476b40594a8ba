"""The conditions of a write: an older event never overtakes a newer one, even when two processes write.

A point names the record it was made from (`Source`). A write carries a condition, which the server checks as it applies
the write, in one order on all replicas (strong ordering). A retired point leaves its source behind, without key, vector
and payload, so that an older record cannot bring it back; the source is deleted once Kafka has deleted the tombstone
too.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import JsonValue
from qdrant_client import models as qdrant

from tagbus.stream.memory.qdrant.engine import point_id
from tagbus.stream.memory.store import RECORD, Payload, Source

# The field of a stored point for the time when it was retired, Unix seconds.
RETIRED: Final = "retired"
LIVE: Final = qdrant.Filter(must=[qdrant.IsEmptyCondition(is_empty=qdrant.PayloadField(key=RETIRED))])
# The condition of one point, as JSON.
CONDITION_BYTES: Final = 600

_PARTITION: Final = f"payload.{RECORD}.partition"
_OFFSET: Final = f"payload.{RECORD}.offset"
_TIME: Final = f"payload.{RECORD}.time"


def is_live(stored: Mapping[str, object] | None) -> bool:
    """Whether a stored point is live, rather than left behind by a retired one."""
    return stored is None or RETIRED not in stored


def unless_newer(sources: Mapping[str, Source]) -> qdrant.Filter | None:
    """Selects the points by key that these records may replace: those without a newer record."""
    if not sources:
        return None
    newer = [_newer(key, source) for key, source in sources.items()]
    return qdrant.Filter(must_not=[*newer])


def swept(keys: Sequence[str], read: Mapping[int, int]) -> qdrant.Filter:
    """Selects those of these points whose records were read. `read`: the next offset of each partition."""
    unread: list[qdrant.Condition] = [
        qdrant.Filter(must=[_in(partition), _after(offset - 1)]) for partition, offset in read.items()
    ]
    return qdrant.Filter(must=[qdrant.HasIdCondition(has_id=[*map(point_id, keys)])], must_not=unread or None)


def forgotten(before: float) -> qdrant.Filter:
    """Selects the remains of points retired before that time, Unix seconds."""
    return qdrant.Filter(must=[qdrant.FieldCondition(key=RETIRED, range=qdrant.Range(lt=before))])


def left_behind(key: str, source: Source) -> qdrant.PointStruct:
    """The remains of a retired point."""
    payload: dict[str, JsonValue] = {RETIRED: int(time.time()), "payload": {RECORD: source.as_json()}}
    return qdrant.PointStruct(id=point_id(key), vector={}, payload=payload)


def sources(payloads: Mapping[str, Payload]) -> dict[str, Source]:
    """The sources of those payloads that name one."""
    found = {key: Source.of(payload) for key, payload in payloads.items()}
    return {key: source for key, source in found.items() if source is not None}


def _newer(key: str, source: Source) -> qdrant.Filter:
    """Selects the point of that key if it has a newer record: a later one of the partition, or, where partitions were
    added since and the key has moved, a younger one of another partition."""
    later = qdrant.Filter(must=[_in(source.partition), _after(source.offset)])
    younger = qdrant.FieldCondition(key=_TIME, range=qdrant.Range(gt=source.time))
    moved = qdrant.Filter(must=[younger], must_not=[_in(source.partition)])
    return qdrant.Filter(must=[qdrant.HasIdCondition(has_id=[point_id(key)])], should=[later, moved])


def _in(partition: int) -> qdrant.FieldCondition:
    return qdrant.FieldCondition(key=_PARTITION, match=qdrant.MatchValue(value=partition))


def _after(offset: int) -> qdrant.FieldCondition:
    return qdrant.FieldCondition(key=_OFFSET, range=qdrant.Range(gt=offset))
