"""Qdrant's engine behind Qdrant's API, as a shared memory uses it."""

import json
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

pytest.importorskip("qdrant_edge")

from tagbus.stream.config import MemorySettings
from tagbus.stream.errors import MemoryLost
from tagbus.stream.local.qdrant import QdrantServer
from tagbus.stream.local.qdrant_api import Qdrant, responder
from tagbus.stream.local.qdrant_engine import Shard
from tagbus.stream.memory import Point, Vectors
from tagbus.stream.memory.qdrant.client import connect
from tagbus.stream.memory.qdrant.collections import CollectionSpec
from tagbus.stream.memory.qdrant.server import ServerStore
from tagbus.stream.memory.store import RECORD, Payload, Source
from tests.memory.conftest import point, unit  # noqa: F401 - fixtures
from tests.memory.listing import listed

Make = Callable[..., Point]
Unit = Callable[..., Vectors]
X, Y, Z = (1, 0, 0), (0, 1, 0), (0, 0, 1)


@pytest.fixture(scope="module")
def server() -> Iterator[QdrantServer]:
    with QdrantServer() as one:
        yield one


def store(server: QdrantServer, release: str) -> ServerStore:
    settings = MemorySettings.model_validate({"kind": "server", "url": server.url})
    return ServerStore(connect(settings), CollectionSpec("tagbus", release, "tags", 3))


def record(offset: int) -> Payload:
    return {RECORD: Source(partition=0, offset=offset, time=offset).as_json()}


async def test_points_outlive_a_kill_and_newer_records_are_not_replaced(
    server: QdrantServer,
    point: Make,  # noqa: F811
    unit: Unit,  # noqa: F811
) -> None:
    written = store(server, "r1")
    state = await written.begin("cluster", "tags")
    await written.upsert([point("a", X, **record(5)), point("b", Y, **record(6)), point("c", Z, **record(7))])
    await written.upsert([point("a", Z, **record(4))])
    await written.retire({"c": Source(partition=0, offset=8, time=8)})
    await written.record(state.model_copy(update={"complete": True, "offsets": {"0": 9}}))
    server.kill()
    server.restart()
    seen = store(server, "r1")
    assert await seen.count() == 2
    assert (await seen.state()) == state.model_copy(update={"complete": True, "offsets": {"0": 9}})
    [hits] = await listed(seen, unit([X]), 5)
    assert [(hit.key, hit.similarity) for hit in hits] == [("a", pytest.approx(1)), ("b", pytest.approx(0))]
    await written.close()
    await seen.close()


async def test_a_scope_is_seen_by_those_who_share_it(
    server: QdrantServer,
    point: Make,  # noqa: F811
    unit: Unit,  # noqa: F811
) -> None:
    written = store(server, "r2")
    await written.begin("cluster", "tags")
    await written.upsert([point("all", X), point("one", X, scopes=["one"]), point("two", X, scopes=["two"])])
    found = await listed(written, unit([X, X]), 5, [frozenset({"one"}), frozenset()])
    assert [[hit.key for hit in hits] for hits in found] == [["all", "one"], ["all"]]
    await written.drop()
    with pytest.raises(MemoryLost):
        await written.count()
    await written.close()


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/collections/x/points", {"points": []}, 404, "Collection `'x'` doesn't exist"),
        ("/collections/../x", {}, 400, "no such call"),
        ("/collections/x", {"vectors": {"size": 3, "distance": "Dot"}}, 400, "one unnamed cosine vector"),
        ("/collections/x", {"vectors": 3}, 400, "validation error"),
    ],
)
def test_what_it_cannot_do_is_refused(server: QdrantServer, path: str, body: object, status: int, words: str) -> None:
    asked = HTTPConnection(server.address, timeout=60)
    asked.request("PUT", path, json.dumps(body))
    answer = asked.getresponse()
    assert answer.status == status
    assert words in answer.read().decode()
    asked.close()


def test_what_the_engine_raises_is_an_answer_and_what_was_deleted_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Given files that cannot be removed."""
    qdrants = Qdrant(tmp_path)
    respond = responder(qdrants, threading.Lock())
    body = json.dumps({"vectors": {"size": 2, "distance": "Cosine"}}).encode()
    assert respond("PUT", "/collections/one", body)[0] == 200
    monkeypatch.setattr(Shard, "remove", raising)
    status, said = respond("DELETE", "/collections/one", b"")
    assert status == 500
    assert "Directory not empty" in json.dumps(said)
    assert "Directory not empty" in capfd.readouterr().err
    assert respond("GET", "/collections/one", b"")[0] == 404
    assert respond("GET", "/collections", b"")[1]["result"] == {"collections": []}  # type: ignore[index]
    qdrants.close()


def raising(_: object) -> None:
    raise OSError(39, "Directory not empty")
