"""Shared by the tests of the Qdrant store: collection specs, and servers that answer as a test says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from qdrant_client import AsyncQdrantClient

from tagbus.stream.config import MemorySettings
from tagbus.stream.memory.qdrant.client import Server
from tagbus.stream.memory.qdrant.collections import CollectionSpec
from tagbus.stream.memory.qdrant.server import ServerStore

OWNER = "cluster c1, topic tags"


class Kept(AsyncQdrantClient):
    """Qdrant in this process, shared by several stores: no store closes it."""

    def __init__(self) -> None:
        super().__init__(":memory:")

    async def close(self, grpc_grace: float | None = None, **_: object) -> None:
        """Stay open."""


def spec(kind: str = "tags", release: str = "r1", dimension: int = 2, namespace: str = "tagbus") -> CollectionSpec:
    return CollectionSpec(namespace, release, kind, dimension)


def reader(client: AsyncQdrantClient, at: CollectionSpec | None = None) -> ServerStore:
    """A store that sees what a writer has completed."""
    return ServerStore(Server(client, "memory"), at or spec())


async def writer(client: AsyncQdrantClient, at: CollectionSpec | None = None, owner: str = OWNER) -> ServerStore:
    """A store that has begun to write."""
    store = reader(client, at)
    await store.begin(owner, "tags")
    return store


def settings(url: str, **more: object) -> MemorySettings:
    return MemorySettings.model_validate({"kind": "server", "url": url, **more})


@asynccontextmanager
async def answering(head: str, body: bytes = b"{}") -> AsyncIterator[str]:
    """A server that gives every request this answer, or none if the head is empty; its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if head:
            writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
        else:
            await reader.read()
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
