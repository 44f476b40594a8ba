"""Shared by Qdrant's engine in this process and on a server: ids, the form of a stored point, ties by key."""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from typing import Final, NamedTuple

import numpy as np
from pydantic import JsonValue

from tagbus.stream.errors import Fatal
from tagbus.stream.memory.checks import decode
from tagbus.stream.memory.hits import KEY, Carried, Hits, bounds
from tagbus.stream.memory.scopes import audience, carried_ids
from tagbus.stream.memory.store import Listed, Payload
from tagbus.stream.memory.validity import FIRST, FROM, LAST, UNTIL, period

# How many points beyond the limit are requested, initially and at most.
MARGIN = 8
TIES = 1024

# The field that a search filters by: a point's scopes, or EVERYBODY, which is not a scope, as an id is never empty.
# Finding an empty list would bypass the index, which takes twice as long (qdrant-edge 0.9); only a tag that others have
# replaced has one, as no content sees it.
SCOPES: Final = "scopes"
EVERYBODY: Final = ""


class Found(NamedTuple):
    """A found point: its key, cosine similarity in -1 to 1, and the ids of the tags that it carries."""

    key: str
    similarity: float
    tags: Sequence[str]


Ask = Callable[[Sequence[int], int], Awaitable[list[list[Found]]]]


def point_id(key: str) -> str:
    """Qdrant's ids are integers or UUIDs; a key is any text, so its id is derived from it (RFC 9562, UUIDv5)."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, key))


def pack(key: str, body: bytes) -> dict[str, JsonValue]:
    """The stored form beside the vector: key, scopes, the bounds of a period, and the payload nested apart, so that
    none of its fields collides."""
    payload = decode(body)
    first, end = period(payload)
    times = ({} if first == FIRST else {FROM: first}) | ({} if end == LAST else {UNTIL: end})
    seen_by = audience(payload)
    named: list[JsonValue] = [] if seen_by is None else [*sorted(seen_by)] or [EVERYBODY]
    return {"key": key, SCOPES: named, **times, "payload": payload}


def unpack(stored: object) -> tuple[str, Payload]:
    """Key and payload of a point that `pack` made. Raises Fatal for any other."""
    match stored:
        case {"key": str(key), "payload": dict(payload)}:
            return key, payload
    raise _foreign()


def listed(id_: str, stored: object) -> Listed:
    """A point by its id and its `key` field; a key that does not match its id is not ours."""
    match stored:
        case {"key": str(key)} if point_id(key) == id_:
            return Listed(id_, key)
    return Listed(id_, None)


def named(id_: str) -> int | str:
    """An id in the engine's form."""
    return int(id_) if id_.isdecimal() else id_


def wanted(carried: Carried) -> list[str]:
    """The fields of a stored point that `found` reads: a search sends no payloads."""
    return ["key"] if carried.tags in (None, KEY) else ["key", f"payload.{carried.tags}"]


def searched(stored: dict[str, JsonValue], carried: Carried) -> dict[str, JsonValue]:
    """The result of `pack`, without the payload fields that no search reads."""
    payload = stored["payload"]
    fields = {carried.tags: payload[carried.tags]} if isinstance(payload, dict) and carried.tags in payload else {}
    return {**stored, "payload": fields}


def visible(scopes: frozenset[str]) -> list[str]:
    """A content of these scopes sees the points that have one of these values in SCOPES."""
    return [EVERYBODY, *sorted(scopes)]


def found(stored: object, score: float, carried: Carried) -> Found:
    """A found point, from its `wanted` fields and its score, which rounding may have put beyond 1.

    The score is rounded to float32, as in `Hits`: ties are by key, and the in-memory client scores in float64.
    """
    match stored:
        case {"key": str(key), **rest}:
            payload = rest.get("payload")
            tags = carried_ids(carried, key, payload if isinstance(payload, dict) else {})
            return Found(key, float(np.float32(min(1.0, max(-1.0, score)))), tags)
    raise _foreign()


async def settled(ask: Ask, queries: int, limit: int, carried: Carried) -> Hits:
    """The best hits of each query, independent of the engine's order among equals.

    `ask(indices, n)` returns the n best hits of those queries. If the last rank ties with the last hit returned, more
    are requested; beyond 1,024 equals the engine's choice stands.
    """
    results: list[list[Found]] = [[] for _ in range(queries)]
    unsettled, asked = list(range(queries)), limit + MARGIN
    while unsettled:
        tied = []
        for index, hits in zip(unsettled, await ask(unsettled, asked), strict=True):
            results[index] = sorted(hits, key=lambda each: (-each.similarity, each.key))[:limit]
            if len(hits) >= asked and hits[-1].similarity >= results[index][-1].similarity:
                tied.append(index)
        unsettled = tied if asked < limit + TIES else []
        asked = min(asked * 4, limit + TIES)
    return _hits(results, carried)


def _hits(results: Sequence[Sequence[Found]], carried: Carried) -> Hits:
    every = list(chain.from_iterable(results))
    keys = np.empty(len(every), np.object_)
    keys[:] = [one.key for one in every]
    return Hits(
        bounds([len(one) for one in results]),
        keys,
        np.array([one.similarity for one in every], np.float32),
        bounds([len(one.tags) for one in every]),
        carried.numbers.of(list(chain.from_iterable(one.tags for one in every))),
    )


def _foreign() -> Fatal:
    return Fatal("the store holds a point that tagbus did not write; delete the store and let it be rebuilt")
