"""A Qdrant server, shared by many workers.

A collection is named `tagbus-{release}-{kind}`, so that a store of one release is never read by another, and its
metadata names the release once more, which catches a collection that was copied or aliased to another's name. Servers
before 1.16 keep no metadata; there the name alone stands. Beyond some 13,000 vectors of 384 dimensions the server
builds an HNSW index, and a search is approximate: that is what a server is taken for.
"""

import asyncio
import math
import re
import uuid
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Self, TypeVar
from urllib.parse import urlsplit

from pydantic import SecretStr
from qdrant_client import AsyncQdrantClient
from qdrant_client import models as qdrant
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from tagbus.stream.errors import DependencyDown, Fatal, MemoryLost, ReleaseMismatch, UserError, shorten
from tagbus.stream.memory.checks import Batch, Description, check_queries, checked, encode
from tagbus.stream.memory.hits import Carried, Hits, TagNumbers
from tagbus.stream.memory.qdrant.engine import (
    EVERYBODY,
    SCOPES,
    Found,
    found,
    pack,
    point_id,
    settled,
    unpack,
    visible,
    wanted,
)
from tagbus.stream.memory.store import Payload, Point, Scopes, Vectors

T = TypeVar("T")

# A point is about 12 bytes of JSON a dimension and its payload; a server takes 32 MB a request, proxies often less.
CHUNK_BYTES = 4_000_000
FLOAT_BYTES = 12
IDS = 1_000
SCROLL = 10_000
# HNSW looks at this many points at least; 2 for each that is asked for.
EF = 256
RELEASE = re.compile(r"[A-Za-z0-9._-]{1,200}")
RETRYABLE = {408, 425, 429}


@dataclass(frozen=True, slots=True)
class Server:
    """A client of a Qdrant server, the server's name in errors, and the deadline of a call in seconds."""

    client: AsyncQdrantClient
    place: str
    seconds: float = 10.0


class ServerStore:
    """Points in a collection of a Qdrant server; `open` makes one."""

    def __init__(self, server: Server, collection: str, release: str, dimension: int, carried: Carried) -> None:
        self.release = release
        self.dimension = dimension
        self.collection = collection
        self.numbers = carried.numbers
        self._carried = carried
        self._client = server.client
        self._place = server.place
        self._seconds = server.seconds

    @classmethod
    async def open(
        cls, server: Server, kind: str, release: str, dimension: int, carried: Carried | None = None
    ) -> Self:
        """The collection of this kind and release, made where there is none. The store closes the client.

        `carried`: which tags its points carry, if any. Raises ReleaseMismatch for a collection of another release or
        dimension, UserError for a key that the server refuses.
        """
        if not RELEASE.fullmatch(release):
            raise UserError(f"release {shorten(release)} names no collection: letters, digits, '.', '_' and '-' do")
        store = cls(server, f"tagbus-{release}-{kind}", release, dimension, carried or Carried(TagNumbers()))
        if not await store._call(store._client.collection_exists(store.collection)):
            await store._create()
        info = await store._call(store._client.get_collection(store.collection))
        store._match(info)
        if SCOPES not in info.payload_schema:
            await store._index()
        return store

    async def upsert(self, points: Sequence[Point]) -> None:
        """Insert or replace by key, in requests of 4 MB. Raises ValueError as `checks.checked` says, before any."""
        batch = await asyncio.to_thread(checked, points, self.dimension)
        for chunk in _chunks(batch):
            await self._call(self._client.upsert(self.collection, chunk, wait=True))

    async def set_payloads(self, payloads: Mapping[str, Payload]) -> None:
        """Replace payloads by key, whose vectors stay. Raises ValueError for one that is no JSON."""
        stored = {key: pack(key, encode(key, payload)) for key, payload in payloads.items()}
        # The server refuses a point that is not there.
        there = list(await self.fetch(list(stored)))
        for start in range(0, len(there), IDS):
            operations: list[qdrant.UpdateOperation] = [
                qdrant.OverwritePayloadOperation(
                    overwrite_payload=qdrant.SetPayload(payload=stored[key], points=[point_id(key)])
                )
                for key in there[start : start + IDS]
            ]
            await self._call(self._client.batch_update_points(self.collection, operations, wait=True))

    async def search(self, queries: Vectors, limit: int, scopes: Scopes = None) -> Hits:
        """The `limit` most similar points of each query, float32 [n, d] of unit length, best first; ties by key."""
        check_queries(queries, self.dimension, limit, scopes)

        async def ask(indices: Sequence[int], asked: int) -> list[list[Found]]:
            parameters = qdrant.SearchParams(hnsw_ef=max(EF, 2 * asked))
            requests = [
                qdrant.QueryRequest(
                    query=queries[index].tolist(),
                    limit=asked,
                    with_payload=wanted(self._carried),
                    filter=None if scopes is None else _filter(scopes[index]),
                    params=parameters,
                )
                for index in indices
            ]
            answered = await self._call(self._client.query_batch_points(self.collection, requests))
            return [
                [found(point.payload, point.score, self._carried) for point in response.points] for response in answered
            ]

        return await settled(ask, len(queries), limit, self._carried)

    async def fetch(self, keys: Sequence[str]) -> dict[str, Payload]:
        """The payloads of those keys that are there."""
        payloads: dict[str, Payload] = {}
        for ids in _ids(keys):
            for record in await self._call(self._client.retrieve(self.collection, ids, with_payload=True)):
                key, payload = unpack(record.payload)
                payloads[key] = payload
        return payloads

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove by key; a key that is not there is no error."""
        for ids in _ids(keys):
            await self._call(self._client.delete(self.collection, qdrant.PointIdsList(points=list(ids)), wait=True))

    async def keys(self) -> set[str]:
        """Every key."""
        keys: set[str] = set()
        offset = None
        while True:
            records, offset = await self._call(
                self._client.scroll(self.collection, limit=SCROLL, offset=offset, with_payload=["key"])
            )
            keys.update(str(record.payload["key"]) for record in records if record.payload)
            if offset is None:
                return keys

    async def count(self) -> int:
        """How many points there are."""
        return (await self._call(self._client.count(self.collection, exact=True))).count

    async def close(self) -> None:
        """Let go of the connections; every point is durable already."""
        await self._client.close()

    async def _create(self) -> None:
        vectors = qdrant.VectorParams(size=self.dimension, distance=qdrant.Distance.COSINE)
        metadata = Description(release=self.release, dimension=self.dimension).model_dump(exclude_none=True)
        try:
            await self._call(self._client.create_collection(self.collection, vectors, metadata=metadata))
        except Fatal:
            # Another worker that starts at the same time was first.
            if not await self._call(self._client.collection_exists(self.collection)):
                raise

    async def _index(self) -> None:
        """Index the scopes, before there are points: built later, the vectors' index would know nothing of them.

        Points of a collection that was made before there were scopes are everybody's.
        """
        await self._call(
            self._client.create_payload_index(self.collection, SCOPES, qdrant.PayloadSchemaType.KEYWORD, wait=True)
        )
        unscoped = qdrant.Filter(must=[qdrant.IsEmptyCondition(is_empty=qdrant.PayloadField(key=SCOPES))])
        await self._call(self._client.set_payload(self.collection, {SCOPES: [EVERYBODY]}, points=unscoped, wait=True))

    def _match(self, info: qdrant.CollectionInfo) -> None:
        place = f"collection {self.collection} of {self._place}"
        vectors = info.config.params.vectors
        if not isinstance(vectors, qdrant.VectorParams) or vectors.distance != qdrant.Distance.COSINE:
            raise ReleaseMismatch(f"{place} was not made by tagbus: expected one unnamed cosine vector; delete it")
        release = (info.config.metadata or {}).get("release", self.release)
        Description(release=str(release), dimension=vectors.size).match(place, self.release, self.dimension)

    async def _call(self, call: Awaitable[T]) -> T:
        """The answer of the server, or what the failure means for us."""
        try:
            async with asyncio.timeout(self._seconds):
                return await call
        except TimeoutError:
            raise DependencyDown(f"Qdrant at {self._place} did not answer within {self._seconds:g} s") from None
        except ResponseHandlingException as error:
            reason = shorten(f"{type(error.source).__name__}: {error.source}", 200)
            raise DependencyDown(f"Qdrant at {self._place} does not answer: {reason}") from error
        except QdrantException as error:
            raise DependencyDown(f"Qdrant at {self._place} is overloaded: {shorten(str(error), 200)}") from error
        except (AssertionError, AttributeError, JSONDecodeError) as error:
            # What the client raises for an answer without a result, and for one that is no JSON: a proxy's page.
            raise DependencyDown(f"Qdrant at {self._place} does not answer as Qdrant does") from error
        except UnexpectedResponse as error:
            raise self._meaning(error) from error

    def _meaning(self, error: UnexpectedResponse) -> DependencyDown | UserError | Fatal:
        status = error.status_code or 0
        said = f"Qdrant at {self._place} answered {status} {error.reason_phrase}"
        if status >= 500 or status in RETRYABLE:
            return DependencyDown(said)
        if status in (401, 403):
            return UserError(f"{said}: it wants another key than TAGBUS_MEMORY__API_KEY holds")
        if status == 404:
            return MemoryLost(f"{said}: collection {self.collection} is gone, so the memory must be rebuilt")
        return Fatal(f"{said}: {shorten(error.content, 200)}")


def connect(url: str, api_key: SecretStr | None, seconds: float) -> Server:
    """A client of the server, and the server's name for errors: its URL without what may be secret in it.

    Nothing is sent yet. Raises UserError for an invalid URL.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError
        place = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
        secret = api_key.get_secret_value() if api_key else None
        client = AsyncQdrantClient(url=url, api_key=secret, timeout=math.ceil(seconds), check_compatibility=False)
    except ValueError:
        expected = "expected http://host:port or https://host:port"
        raise UserError(f"TAGBUS_MEMORY__URL is no address of a server: {expected}") from None
    return Server(client, place, seconds)


def _filter(scopes: frozenset[str]) -> qdrant.Filter:
    return qdrant.Filter(must=[qdrant.FieldCondition(key=SCOPES, match=qdrant.MatchAny(any=visible(scopes)))])


def _ids(keys: Sequence[str]) -> Iterator[list[int | str | uuid.UUID]]:
    for start in range(0, len(keys), IDS):
        yield [point_id(key) for key in keys[start : start + IDS]]


def _chunks(batch: Batch) -> Iterator[list[qdrant.PointStruct]]:
    """The points in requests of about 4 MB."""
    chunk: list[qdrant.PointStruct] = []
    size = 0
    for key, vector, body in zip(batch.keys, batch.vectors, batch.bodies, strict=True):
        bytes_ = FLOAT_BYTES * len(vector) + len(body)
        if chunk and size + bytes_ > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(qdrant.PointStruct(id=point_id(key), vector=vector.tolist(), payload=pack(key, body)))
        size += bytes_
    if chunk:
        yield chunk
