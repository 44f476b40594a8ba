"""Search results for tests: lists of hits with their payloads."""

from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

from tagbus.stream.memory import ExactStore, Payload, Store, Vectors
from tagbus.stream.memory.store import Scopes

S = TypeVar("S", bound=ExactStore)


class Hit(NamedTuple):
    """A found point: cosine similarity in -1 to 1, the ids of the tags that it carries, and its payload."""

    key: str
    similarity: float
    tags: list[str]
    payload: Payload


async def listed(
    store: Store, queries: Vectors, limit: int, scopes: Scopes = None, at: datetime | None = None
) -> list[list[Hit]]:
    """The hits of each query, with their payloads read afterwards."""
    hits = await store.search(queries, limit, scopes, at)
    payloads = await store.fetch(sorted(set(hits.keys.tolist())))
    found = []
    for one in hits:
        bounds = one.tag_starts.tolist()
        tags = [store.numbers.ids[number] for number in one.tags.tolist()]
        found.append(
            [
                Hit(key, score, tags[start:end], payloads[key])
                for key, score, start, end in zip(
                    one.keys.tolist(), one.scores.tolist(), bounds[:-1], bounds[1:], strict=True
                )
            ]
        )
    return found


async def taken(store: S, folder: Path) -> S:
    """The store, which is empty, with what another saved in the folder."""
    await store.take(folder)
    return store
