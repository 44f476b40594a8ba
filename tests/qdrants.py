"""Qdrant for the tests: in this process, and on the server of TAGBUS_TEST_QDRANT where there is one.

The server holds nothing else: what begins with `tagbus-` or `other-` is deleted.
"""

import os
from collections.abc import AsyncIterator
from typing import Final

from qdrant_client import AsyncQdrantClient

from tagbus.stream.config import MemorySettings
from tagbus.stream.memory.qdrant.client import connect

SERVER: Final = os.environ.get("TAGBUS_TEST_QDRANT")
QDRANTS: Final = ("in-memory", *(("server",) if SERVER else ()))


async def empty(name: str) -> AsyncIterator[AsyncQdrantClient]:
    """An empty one of QDRANTS."""
    if name == "in-memory":
        yield AsyncQdrantClient(":memory:")
        return
    client = connect(MemorySettings(kind="server", url=SERVER or "")).client
    await _clear(client)
    yield client
    await _clear(client)
    await client.close()


async def _clear(client: AsyncQdrantClient) -> None:
    for one in (await client.get_collections()).collections:
        if one.name.startswith(("tagbus-", "other-")):
            await client.delete_collection(one.name)
