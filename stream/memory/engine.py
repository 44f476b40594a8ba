"""What Qdrant's engine needs, in this process as on a server: ids, the form of a stored point, ties by key."""

import uuid
from collections.abc import Awaitable, Callable, Sequence

from pydantic import JsonValue

from tagbus.stream.errors import Fatal
from tagbus.stream.memory.checks import decode
from tagbus.stream.memory.store import Hit, Payload

# How many points beyond the limit are asked for at first, and at most.
MARGIN = 8
TIES = 1024

Ask = Callable[[Sequence[int], int], Awaitable[list[list[Hit]]]]


def point_id(key: str) -> str:
    """Qdrant's ids are integers or UUIDs; a key is any text, so its id is made from it (RFC 9562, UUIDv5)."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, key))


def pack(key: str, body: bytes) -> dict[str, JsonValue]:
    """What is stored beside the vector: the key, and the payload apart from it, so that no field of it collides."""
    return {"key": key, "payload": decode(body)}


def unpack(stored: object) -> tuple[str, Payload]:
    """Key and payload of a point that `pack` made. Raises Fatal for any other."""
    match stored:
        case {"key": str(key), "payload": dict(payload)}:
            return key, payload
    raise Fatal("the store holds a point that tagbus did not write; delete the store and let it be rebuilt")


def hit(stored: object, score: float) -> Hit:
    """A hit from a stored point and its score, which rounding may have put beyond 1."""
    key, payload = unpack(stored)
    return Hit(key, min(1.0, max(-1.0, score)), payload)


async def settled(ask: Ask, queries: int, limit: int) -> list[list[Hit]]:
    """The best hits of each query, the same whichever of several equals the engine names first.

    `ask(indices, n)` gives the n best hits of those queries. Where the last place is tied with the last hit that came,
    more are asked for; beyond 1,024 equals the engine's own choice stands.
    """
    results: list[list[Hit]] = [[] for _ in range(queries)]
    unsettled, asked = list(range(queries)), limit + MARGIN
    while unsettled:
        tied = []
        for index, hits in zip(unsettled, await ask(unsettled, asked), strict=True):
            results[index] = sorted(hits, key=lambda each: (-each.similarity, each.key))[:limit]
            if len(hits) >= asked and hits[-1].similarity >= results[index][-1].similarity:
                tied.append(index)
        unsettled = tied if asked < limit + TIES else []
        asked = min(asked * 4, limit + TIES)
    return results
