"""From settings to the two stores of a worker."""

import asyncio
from typing import Literal

from tagbus.stream.config import MemorySettings
from tagbus.stream.memory.embedded import EmbeddedStore
from tagbus.stream.memory.exact import ExactStore
from tagbus.stream.memory.hnsw import HnswStore
from tagbus.stream.memory.store import Store

Kind = Literal["tags", "exemplars"]


async def open_stores(settings: MemorySettings, release: str, dimension: int) -> tuple[Store, Store]:
    """The store of tags and the store of exemplars.

    Raises ReleaseMismatch for stores of another release, UserError for settings that lead nowhere, DependencyDown
    where the server does not answer.
    """
    tags = await open_store(settings, "tags", release, dimension)
    try:
        return tags, await open_store(settings, "exemplars", release, dimension)
    except BaseException:
        await asyncio.shield(tags.close())
        raise


async def open_store(settings: MemorySettings, kind: Kind, release: str, dimension: int) -> Store:
    """One of the two; raises as `open_stores` does."""
    match settings.kind:
        case "exact":
            return ExactStore(release, dimension)
        case "hnsw":
            return HnswStore(release, dimension)
        case "embedded":
            if settings.path is None:
                return await EmbeddedStore.temporary(release, dimension)
            return await EmbeddedStore.open(settings.path / release / kind, release, dimension)
        case "server":
            return await _open_server(settings, kind, release, dimension)


async def _open_server(settings: MemorySettings, kind: Kind, release: str, dimension: int) -> Store:
    # qdrant-client takes a second to import, which the other stores need not pay.
    from tagbus.stream.memory.server import ServerStore, connect

    client, place = connect(settings.url, settings.api_key, settings.deadline_seconds)
    try:
        return await ServerStore.open(client, place, kind, release, dimension, settings.deadline_seconds)
    except BaseException:
        await asyncio.shield(client.close())
        raise
