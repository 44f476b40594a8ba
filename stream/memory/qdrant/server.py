"""The store on a Qdrant server, which one process writes and many read.

Beyond some 13,000 vectors of 384 dimensions the server builds an HNSW index, and a search is approximate: that is the
reason to use a server. A search that runs while a point is replaced may return the score of its old vector with its new
payload: the server looks them up one after the other.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from qdrant_client import models as qdrant

from tagbus.stream.errors import DependencyDown, shorten
from tagbus.stream.memory.checks import Batch, check_queries, checked, encode
from tagbus.stream.memory.hits import KEY, Carried, Hits, TagNumbers
from tagbus.stream.memory.kinds import HASH
from tagbus.stream.memory.qdrant.client import Server
from tagbus.stream.memory.qdrant.collections import Collections, CollectionSpec
from tagbus.stream.memory.qdrant.conditions import (
    CONDITION_BYTES,
    LIVE,
    forgotten,
    is_live,
    left_behind,
    sources,
    swept,
    unless_newer,
)
from tagbus.stream.memory.qdrant.congestion import Congestion
from tagbus.stream.memory.qdrant.engine import (
    SCOPES,
    Found,
    found,
    listed,
    named,
    pack,
    point_id,
    settled,
    unpack,
    visible,
    wanted,
)
from tagbus.stream.memory.qdrant.form import SCROLL, search_parameters
from tagbus.stream.memory.shared import BuildState
from tagbus.stream.memory.store import Listed, Payload, Point, Scopes, Source, Vectors
from tagbus.stream.memory.validity import FROM, UNTIL, microseconds

# A float32 as JSON, with its comma: -0.051020402461290360 and shorter ones.
FLOAT_BYTES: Final = 22
# A request's other fields: filter, limit, parameters, a point's id and key.
REST_BYTES: Final = 500
IDS: Final = 1_000
# Through the shard's leader: every replica applies writes in one order.
ORDER: Final = qdrant.WriteOrdering.STRONG


class ServerStore:
    """Points in a collection of a Qdrant server. It makes no call before it is used."""

    def __init__(
        self, server: Server, spec: CollectionSpec, carried: Carried | None = None, congestion: Congestion | None = None
    ) -> None:
        """`carried`: which tags its points carry, if any. `congestion`: shared by all stores on this server.

        The store closes the client. Raises UserError for a release whose name is invalid for a collection.
        """
        self.release = spec.release
        self.dimension = spec.dimension
        # Readers see the build behind the alias; the writer writes its own.
        self.collection = spec.alias
        self._carried = carried or Carried(TagNumbers())
        self.numbers = self._carried.numbers
        self._spec = spec
        self._server = server
        self._client = server.client
        self._collections = Collections(server, spec)
        self._congestion = congestion or Congestion()

    async def state(self) -> BuildState | None:
        """See SharedStore."""
        return await self._collections.state()

    async def begin(self, owner: str, topic: str) -> BuildState:
        """See SharedStore."""
        self.collection, state = await self._collections.begin(owner, topic)
        return state

    async def begin_anew(self, owner: str, topic: str) -> BuildState:
        """See SharedStore."""
        self.collection, state = await self._collections.begin_anew(owner, topic)
        return state

    async def rebuild(self, owner: str, topic: str) -> BuildState:
        """See SharedStore."""
        await self._collections.discard()
        return await self.begin_anew(owner, topic)

    async def copy(self) -> int:
        """See SharedStore."""
        copied, offset, some = 0, None, self._per_request()
        while True:
            reading = self._client.scroll(
                self._spec.alias, LIVE, limit=some, offset=offset, with_payload=True, with_vectors=True
            )
            records, offset = await self._server.call(reading)
            points = {
                one.key: qdrant.PointStruct(id=record.id, vector=record.vector or {}, payload=record.payload)
                for record in records
                if (one := listed(str(record.id), record.payload)).key is not None
            }
            await self._put(points, {})
            copied += len(points)
            if offset is None:
                return copied

    async def seen(self) -> int:
        """See SharedStore."""
        behind = await self._collections.behind()
        return 0 if behind is None else (await self._server.call(self._client.count(behind, LIVE, exact=True))).count

    async def record(self, state: BuildState) -> None:
        """See SharedStore."""
        await self._collections.record(self.collection, state)

    async def drop(self) -> None:
        """See SharedStore."""
        await self._collections.drop()

    async def differences(self) -> list[str]:
        """See SharedStore."""
        return [str(one) for one in await self._collections.differences()]

    async def upsert(self, points: Sequence[Point]) -> None:
        """Insert or replace by key, in requests of a bounded size, except points with a newer record.

        Raises ValueError as `checks.checked` does, before any request.
        """
        batch = await asyncio.to_thread(checked, points, self.dimension)
        for chunk in _chunks(batch, self._server.request_bytes):
            await self._put(chunk, sources({key: unpack(point.payload)[1] for key, point in chunk.items()}))

    async def set_payloads(self, payloads: Mapping[str, Payload]) -> None:
        """Replace payloads by key; vectors stay. Raises ValueError for one that is not JSON.

        A point is written whole, so that payload and vector come from one record. Raises DependencyDown if another
        process has changed its text meanwhile: applied again, the record is encoded.
        """
        bodies = {key: encode(key, payload) for key, payload in payloads.items()}
        some = self._per_request()
        for start in range(0, len(bodies), some):
            asked = {key: payloads[key] for key in [*bodies][start : start + some]}
            ids: list[int | str | uuid.UUID] = [*map(point_id, asked)]
            reading = self._client.retrieve(self.collection, ids, with_payload=True, with_vectors=True)
            found = await self._server.call(reading)
            stored = {unpack(one.payload)[0]: one for one in found if is_live(one.payload)}
            self._require_unchanged(asked, stored)
            points = {
                key: qdrant.PointStruct(id=one.id, vector=one.vector or {}, payload=pack(key, bodies[key]))
                for key, one in stored.items()
            }
            await self._put(points, sources({key: asked[key] for key in points}))

    async def retire(self, tombstones: Mapping[str, Source]) -> None:
        """See SharedStore."""
        keys = [*tombstones]
        for start in range(0, len(keys), IDS):
            some = {key: tombstones[key] for key in keys[start : start + IDS]}
            await self._put({key: left_behind(key, source) for key, source in some.items()}, some)

    async def sweep(self, keys: Sequence[str], read: Mapping[int, int]) -> None:
        """See SharedStore."""
        for start in range(0, len(keys), IDS):
            await self._remove(swept(keys[start : start + IDS], read))

    async def forget(self, before: float) -> None:
        """See SharedStore."""
        await self._remove(forgotten(before))

    async def search(self, queries: Vectors, limit: int, scopes: Scopes = None, at: datetime | None = None) -> Hits:
        """The `limit` most similar points of each query, float32 [n, d] of unit length, best first; ties by key."""
        check_queries(queries, self.dimension, limit, scopes)

        async def ask(indices: Sequence[int], asked: int) -> list[list[Found]]:
            parameters = search_parameters(self._server.form, asked, filtered=not (scopes is None and at is None))
            requests = [
                qdrant.QueryRequest(
                    query=queries[index].tolist(),
                    limit=asked,
                    with_payload=wanted(self._carried),
                    filter=_filter(None if scopes is None else scopes[index], at, self._carried),
                    params=parameters,
                )
                for index in indices
            ]
            # The server gives up at the deadline too: abandoned work would slow the next requests.
            seconds = max(1, round(self._server.seconds))
            asking = self._client.query_batch_points(self.collection, requests, timeout=seconds)
            answered = await self._server.call(asking)
            return [
                [found(point.payload, point.score, self._carried) for point in response.points] for response in answered
            ]

        async def ask_adapted(indices: Sequence[int], asked: int) -> list[list[Found]]:
            return await self._congestion.ask(lambda some: ask(some, asked), indices, self._per_request())

        return await settled(ask_adapted, len(queries), limit, self._carried)

    async def fetch(self, keys: Sequence[str]) -> dict[str, Payload]:
        """The payloads of the existing keys."""
        payloads: dict[str, Payload] = {}
        for ids in _ids(keys):
            for record in await self._server.call(self._client.retrieve(self.collection, ids, with_payload=True)):
                if is_live(record.payload):
                    key, payload = unpack(record.payload)
                    payloads[key] = payload
        return payloads

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove by key; a missing key is no error."""
        for ids in _ids(keys):
            await self._remove(qdrant.PointIdsList(points=ids))

    async def keys(self) -> set[str]:
        """Every key."""
        return {one.key async for page in self.pages() for one in page if one.key is not None}

    async def pages(self) -> AsyncIterator[list[Listed]]:
        """See ListedStore."""
        offset = None
        while True:
            reading = self._client.scroll(self.collection, LIVE, limit=SCROLL, offset=offset, with_payload=["key"])
            records, offset = await self._server.call(reading)
            yield [listed(str(record.id), record.payload) for record in records]
            if offset is None:
                return

    async def remove(self, ids: Sequence[str]) -> None:
        """See ListedStore."""
        for start in range(0, len(ids), IDS):
            await self._remove(qdrant.PointIdsList(points=[*map(named, ids[start : start + IDS])]))

    async def count(self) -> int:
        """The number of points."""
        return (await self._server.call(self._client.count(self.collection, LIVE, exact=True))).count

    async def close(self) -> None:
        """Close the connections; every point is durable already."""
        await self._client.close()

    async def _put(self, points: Mapping[str, qdrant.PointStruct], written: Mapping[str, Source]) -> None:
        """Send one request. Points without a source replace unconditionally."""
        if points:
            writing = self._client.upsert(
                self.collection, [*points.values()], wait=True, ordering=ORDER, update_filter=unless_newer(written)
            )
            await self._server.call(writing)

    async def _remove(self, which: qdrant.Filter | qdrant.PointIdsList) -> None:
        await self._server.call(self._client.delete(self.collection, which, wait=True, ordering=ORDER))

    def _require_unchanged(self, asked: Mapping[str, Payload], stored: Mapping[str, qdrant.Record]) -> None:
        for key in sources(asked):
            if key not in stored or unpack(stored[key].payload)[1].get(HASH) != asked[key].get(HASH):
                raise DependencyDown(f"{shorten(key)} in {self.collection} was changed by another process meanwhile")

    def _per_request(self) -> int:
        """The limit of vectors in a request or an answer."""
        return max(1, self._server.request_bytes // (FLOAT_BYTES * self.dimension + REST_BYTES))


def _filter(scopes: frozenset[str] | None, at: datetime | None, carried: Carried) -> qdrant.Filter | None:
    seen: list[qdrant.Condition] = []
    unseen: list[qdrant.Condition] = []
    if scopes is not None:
        seen.append(qdrant.FieldCondition(key=SCOPES, match=qdrant.MatchAny(any=visible(scopes))))
    elif carried.tags == KEY:
        # Only tags are ever replaced.
        unseen.append(qdrant.IsEmptyCondition(is_empty=qdrant.PayloadField(key=SCOPES)))
    if at is not None:
        # Not the inverse: a point without a period is valid at any time.
        time = microseconds(at)
        unseen.append(qdrant.FieldCondition(key=FROM, range=qdrant.Range(gt=time)))
        unseen.append(qdrant.FieldCondition(key=UNTIL, range=qdrant.Range(lte=time)))
    return qdrant.Filter(must=seen or None, must_not=unseen or None) if seen or unseen else None


def _ids(keys: Sequence[str]) -> Iterator[list[int | str | uuid.UUID]]:
    for start in range(0, len(keys), IDS):
        yield [point_id(key) for key in keys[start : start + IDS]]


def _chunks(batch: Batch, request_bytes: int) -> Iterator[dict[str, qdrant.PointStruct]]:
    """The points by key in requests of at most that size, except a single larger point."""
    chunk: dict[str, qdrant.PointStruct] = {}
    size = 0
    for key, vector, body in zip(batch.keys, batch.vectors, batch.bodies, strict=True):
        bytes_ = FLOAT_BYTES * len(vector) + len(body) + REST_BYTES + CONDITION_BYTES
        if chunk and size + bytes_ > request_bytes:
            yield chunk
            chunk, size = {}, 0
        chunk[key] = qdrant.PointStruct(id=point_id(key), vector=vector.tolist(), payload=pack(key, body))
        size += bytes_
    if chunk:
        yield chunk
