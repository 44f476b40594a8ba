"""A Qdrant server: what its answers, its silence and its collections mean for us."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr
from qdrant_client import AsyncQdrantClient
from qdrant_client import models as qdrant

from tagbus.stream.config import MemorySettings
from tagbus.stream.errors import DependencyDown, Fatal, MemoryLost, ReleaseMismatch, UserError
from tagbus.stream.memory import Point, Vectors, open_store
from tagbus.stream.memory.qdrant import server
from tagbus.stream.memory.qdrant.server import Server, ServerStore
from tests.memory.listing import listed

Make = Callable[..., Point]
Unit = Callable[..., Vectors]


@pytest.fixture
def client() -> AsyncQdrantClient:
    return AsyncQdrantClient(":memory:")


async def create(
    client: AsyncQdrantClient, size: int, metadata: dict[str, str] | None, distance: qdrant.Distance
) -> None:
    parameters = qdrant.VectorParams(size=size, distance=distance)
    await client.create_collection("tagbus-r1-tags", parameters, metadata=metadata)


async def test_kinds_and_releases_have_collections_of_their_own(
    client: AsyncQdrantClient, point: Make, unit: Unit
) -> None:
    tags = await ServerStore.open(Server(client, "memory"), "tags", "r1", 2)
    exemplars = await ServerStore.open(Server(client, "memory"), "exemplars", "r1", 2)
    other = await ServerStore.open(Server(client, "memory"), "tags", "r2", 2)
    await tags.upsert([point("x", (1, 0))])
    assert [await store.count() for store in (tags, exemplars, other)] == [1, 0, 0]
    names = {each.name for each in (await client.get_collections()).collections}
    assert names == {"tagbus-r1-tags", "tagbus-r1-exemplars", "tagbus-r2-tags"}


async def test_points_are_there_after_a_reopening(client: AsyncQdrantClient, point: Make) -> None:
    await (await ServerStore.open(Server(client, "memory"), "tags", "r1", 2)).upsert([point("x", (1, 0))])
    assert await (await ServerStore.open(Server(client, "memory"), "tags", "r1", 2)).keys() == {"x"}


async def test_a_collection_of_another_release_is_refused(client: AsyncQdrantClient) -> None:
    """Under this release's name, by an alias or a copy, lies what another release made."""
    await create(client, 2, {"release": "r0"}, qdrant.Distance.COSINE)
    with pytest.raises(ReleaseMismatch, match=r"collection tagbus-r1-tags of memory.*'r0'.*'r1'"):
        await ServerStore.open(Server(client, "memory"), "tags", "r1", 2)


async def test_a_collection_of_another_dimension_is_refused(client: AsyncQdrantClient) -> None:
    await create(client, 3, {"release": "r1"}, qdrant.Distance.COSINE)
    with pytest.raises(ReleaseMismatch, match=r"3 dimensions.*makes 2"):
        await ServerStore.open(Server(client, "memory"), "tags", "r1", 2)


async def test_a_collection_of_another_distance_is_refused(client: AsyncQdrantClient) -> None:
    await create(client, 2, None, qdrant.Distance.EUCLID)
    with pytest.raises(ReleaseMismatch, match="was not made by tagbus"):
        await ServerStore.open(Server(client, "memory"), "tags", "r1", 2)


async def test_a_server_that_keeps_no_metadata_is_trusted_by_name(client: AsyncQdrantClient) -> None:
    """Qdrant before 1.16."""
    await create(client, 2, None, qdrant.Distance.COSINE)
    assert await (await ServerStore.open(Server(client, "memory"), "tags", "r1", 2)).count() == 0


async def test_a_release_that_is_no_name_is_refused(client: AsyncQdrantClient) -> None:
    with pytest.raises(UserError, match="'a/b' names no collection"):
        await ServerStore.open(Server(client, "memory"), "tags", "a/b", 2)


async def test_a_foreign_point_is_named(client: AsyncQdrantClient, unit: Unit) -> None:
    store = await ServerStore.open(Server(client, "memory"), "tags", "r1", 2)
    await client.upsert(store.collection, [qdrant.PointStruct(id=1, vector=[1, 0], payload={"by": "hand"})])
    with pytest.raises(Fatal, match="a point that tagbus did not write"):
        await listed(store, unit([(1, 0)]), 1)


async def test_large_batches_go_in_several_requests(
    client: AsyncQdrantClient, point: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CHUNK_BYTES", 300)
    monkeypatch.setattr(server, "IDS", 7)
    monkeypatch.setattr(server, "SCROLL", 7)
    store = await ServerStore.open(Server(client, "memory"), "tags", "r1", 2)
    await store.upsert([point(f"k{n}", (1, n), text="x" * n) for n in range(50)])
    keys = {f"k{n}" for n in range(50)}
    assert await store.keys() == keys
    assert len(await store.fetch(sorted(keys))) == 50
    await store.delete(sorted(keys))
    assert await store.count() == 0


@asynccontextmanager
async def answering(head: str, body: bytes = b"{}") -> AsyncIterator[str]:
    """A server that gives every request this answer, or none where the head is empty; its URL."""

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


def settings(url: str, **more: object) -> MemorySettings:
    return MemorySettings.model_validate({"kind": "server", "url": url, **more})


async def test_a_server_that_is_not_there_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(DependencyDown, match=f"Qdrant at {url} does not answer"):
        await open_store(settings(url), "tags", "r1", 2)


async def test_a_server_that_says_nothing_is_down_at_the_deadline() -> None:
    async with answering("") as url:
        with pytest.raises(DependencyDown, match=f"Qdrant at {url} did not answer within 0.2 s"):
            await open_store(settings(url, deadline_seconds=0.2), "tags", "r1", 2)


@pytest.mark.parametrize(
    ("head", "error", "said"),
    [
        ("503 Service Unavailable", DependencyDown, "answered 503 Service Unavailable"),
        ("500 Internal Server Error", DependencyDown, "answered 500"),
        ("429 Too Many Requests", DependencyDown, "answered 429"),
        ("429 Too Many Requests\r\nRetry-After: 3", DependencyDown, "overloaded"),
        ("200 OK", DependencyDown, "does not answer as Qdrant does"),
        ("401 Unauthorized", UserError, "another key than TAGBUS_MEMORY__API_KEY"),
        ("403 Forbidden", UserError, "another key than TAGBUS_MEMORY__API_KEY"),
        ("404 Not Found", MemoryLost, "tagbus-r1-tags is gone"),
        ("400 Bad Request", Fatal, "answered 400 Bad Request: b'{}'"),
    ],
)
async def test_what_a_refusal_means(head: str, error: type[Exception], said: str) -> None:
    async with answering(head) as url:
        with pytest.raises(error, match=said) as caught:
            await open_store(settings(url), "tags", "r1", 2)
    assert url in str(caught.value)
    assert caught.type is error


async def test_an_answer_that_is_none_of_qdrants_is_no_crash() -> None:
    async with answering("200 OK", b"<html>welcome</html>") as url:
        with pytest.raises(DependencyDown, match=f"Qdrant at {url} does not answer"):
            await open_store(settings(url), "tags", "r1", 2)


async def test_a_key_is_never_shown() -> None:
    secret = "s3cret"
    async with answering("400 Bad Request", b'{"status":{"error":"no"}}') as url:
        credentials = url.replace("http://", f"http://someone:{secret}@") + f"/?token={secret}"
        for address in (url, credentials):
            with (
                pytest.warns(UserWarning, match="insecure connection"),
                pytest.raises((Fatal, DependencyDown)) as caught,
            ):
                await open_store(settings(address, api_key=SecretStr(secret)), "tags", "r1", 2)
            assert secret not in str(caught.value)


@pytest.mark.parametrize("url", ["", "somewhere", "ftp://host", "http://", "http://[::1", "http://host:port"])
async def test_a_url_that_is_none_is_a_users_error(url: str) -> None:
    with pytest.raises(UserError, match=r"TAGBUS_MEMORY__URL is no address.*http://host:port"):
        await open_store(settings(url), "tags", "r1", 2)
