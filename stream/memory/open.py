"""Open the stores of a worker from its settings: one of every kind."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from tagbus.stream.config import MemorySettings
from tagbus.stream.config.base.environment import named
from tagbus.stream.memory.exact import ExactStore
from tagbus.stream.memory.hits import Carried, TagNumbers
from tagbus.stream.memory.hnsw import HnswStore, IndexOptions
from tagbus.stream.memory.kinds import KINDS, Kind
from tagbus.stream.memory.qdrant.embedded import EmbeddedStore
from tagbus.stream.memory.store import Memory, Store

# Opens the store of a kind by name; its points carry those tags.
Opener = Callable[[str, Carried], Awaitable[Store]]


async def open_memory(
    settings: MemorySettings, release: str, dimension: int, kinds: Mapping[str, Kind] = KINDS
) -> Memory:
    """Open a store of every kind, as configured.

    Raises ReleaseMismatch for stores of another release, UserError for settings that are not usable. No server is
    called before its stores are used.
    """
    if settings.kind == "server":
        return await memory_of(_on_server(settings, release, dimension), kinds)
    return await memory_of(lambda kind, carried: open_store(settings, kind, release, dimension, carried), kinds)


async def memory_of(open_: Opener, kinds: Mapping[str, Kind] = KINDS) -> Memory:
    """Open a store of every kind, sharing the numbers of tags; if one cannot be opened, those before it are closed."""
    numbers = TagNumbers()
    stores: dict[str, Store] = {}
    try:
        for name, kind in kinds.items():
            stores[name] = await open_(name, Carried(numbers, kind.tags))
    except BaseException:
        for store in stores.values():
            await asyncio.shield(store.close())
        raise
    return Memory(stores)


def exact_memory(release: str, dimension: int, made: type[ExactStore] = ExactStore) -> Memory:
    """An empty memory in this process."""
    numbers = TagNumbers()
    return Memory({name: made(release, dimension, Carried(numbers, kind.tags)) for name, kind in KINDS.items()})


async def open_store(
    settings: MemorySettings, kind: str, release: str, dimension: int, carried: Carried | None = None
) -> Store:
    """Open the store of one kind; raises as `open_memory` does."""
    match settings.kind:
        case "exact":
            return ExactStore(release, dimension, carried)
        case "hnsw":
            return HnswStore(release, dimension, carried, files_folder(settings), index_options(settings))
        case "embedded":
            if settings.path is None:
                return await EmbeddedStore.temporary(release, dimension, carried)
            with named("memory.path", settings.path, None):
                return await EmbeddedStore.open(settings.path / release / kind, release, dimension, carried)
        case "server":
            return await _on_server(settings, release, dimension)(kind, carried or Carried(TagNumbers()))


def files_folder(settings: MemorySettings) -> Path | None:
    """Where a store in this process keeps its vectors and payloads in files; None: in memory."""
    if settings.kind != "hnsw" or not settings.vectors_on_disk:
        return None
    return settings.path or Path(tempfile.gettempdir())


def index_options(settings: MemorySettings) -> IndexOptions:
    """How hnsw's index is built and searched."""
    return IndexOptions(settings.index_dimensions, settings.index_visited)


def _on_server(settings: MemorySettings, release: str, dimension: int) -> Opener:
    """Open stores that share a connection and its congestion window."""
    # qdrant-client takes a second to import; the other stores avoid that.
    from tagbus.stream.memory.qdrant.client import connect
    from tagbus.stream.memory.qdrant.collections import CollectionSpec
    from tagbus.stream.memory.qdrant.congestion import Congestion
    from tagbus.stream.memory.qdrant.server import ServerStore

    server, congestion = connect(settings), Congestion()

    async def store(kind: str, carried: Carried) -> Store:
        return ServerStore(server, CollectionSpec(settings.namespace, release, kind, dimension), carried, congestion)

    return store
