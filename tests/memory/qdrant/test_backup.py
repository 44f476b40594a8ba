"""Backups of a memory on a server. The server's side is simulated: the in-memory mode has no snapshots."""

import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from tagbus.stream.errors import DependencyDown, ReleaseMismatch, UserError
from tagbus.stream.memory import Point
from tagbus.stream.memory.qdrant import backup as module
from tagbus.stream.memory.qdrant.backup import BackupServer
from tagbus.stream.memory.qdrant.client import Server
from tests.memory.qdrant.parts import OWNER, Kept, reader, settings, spec, writer

UNIT = np.array([1, 0], np.float32)
SPECS = {"tags": spec(), "exemplars": spec("exemplars")}


class Played:
    """A server's snapshots: a snapshot is the collection's metadata and keys as JSON."""

    def __init__(self, client: Kept) -> None:
        self.client = client
        self.asked: list[str] = []
        self.keys: set[str | None] = set()
        self.remote: list[object] = []
        self.broken = ""

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path}")
        self.keys.add(request.headers.get("api-key"))
        _, _, name, *rest = request.url.path.split("/")
        if self.broken and self.broken in request.url.path:
            return httpx.Response(503)
        if rest == ["cluster"]:
            return httpx.Response(200, json={"result": {"remote_shards": self.remote}})
        if rest == ["snapshots", "upload"]:
            return await self._recovered(name, request)
        if request.method == "POST":
            return httpx.Response(200, json={"result": {"name": "s1", "size": 1}})
        if request.method == "DELETE":
            return httpx.Response(200, json={"result": True})
        info = await self.client.get_collection(name)
        return httpx.Response(200, content=json.dumps(info.config.metadata).encode())

    async def _recovered(self, name: str, request: httpx.Request) -> httpx.Response:
        body = (await request.aread()).decode()
        metadata = json.loads(body[body.index("{") : body.rindex("}") + 1])
        info = await self.client.get_collection((await self.client.get_collections()).collections[0].name)
        await self.client.create_collection(name, info.config.params.vectors, metadata=metadata)
        assert request.url.params["priority"] == "snapshot"
        assert len(request.url.params["checksum"]) == 64
        return httpx.Response(200, json={"result": True})


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Kept:
    client = Kept()
    monkeypatch.setattr(module, "connect", lambda _: Server(client, "memory"))
    return client


def served(played: Played) -> BackupServer:
    return BackupServer(settings("http://127.0.0.1:6333", api_key="secret"), httpx.MockTransport(played))


async def filled(client: Kept) -> None:
    for at in SPECS.values():
        store = await writer(client, at)
        await store.upsert([Point("a", UNIT, {})])
        state = await store.state()
        assert state is None
        made = (await store.begin(OWNER, "tags")).model_copy(update={"complete": True, "offsets": {"0": 7}})
        await store.record(made)


async def test_a_memory_is_saved_and_restored_with_its_offsets(client: Kept, tmp_path: Path) -> None:
    await filled(client)
    played = Played(client)
    await served(played).save(SPECS, tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [
        "backup.json",
        "exemplars.snapshot",
        "tags.snapshot",
    ]
    assert sum(line.startswith("DELETE ") for line in played.asked) == 2, "nothing is left on the server's disk"
    before = await reader(client).state()

    await served(played).restore(SPECS, tmp_path / "copy", OWNER)

    state = await reader(client).state()
    assert before is not None
    assert state is not None
    assert (state.offsets, state.complete) == ({"0": 7}, True)
    assert state.build != before.build
    assert (await client.get_aliases()).aliases[0].collection_name.endswith(state.build)
    assert len((await client.get_collections()).collections) == 2
    assert played.keys == {"secret"}


async def test_a_collection_that_is_spread_over_a_cluster_is_refused(client: Kept, tmp_path: Path) -> None:
    await filled(client)
    played = Played(client)
    played.remote = [{"shard_id": 1}]
    with pytest.raises(UserError, match="spread over a cluster"):
        await served(played).save(SPECS, tmp_path)


async def test_a_missing_memory_is_not_copied(client: Kept, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no collection behind tagbus-r1-tags"):
        await served(Played(client)).save(SPECS, tmp_path)


async def test_a_copy_that_is_damaged_or_of_another_release_or_owner_changes_nothing(
    client: Kept, tmp_path: Path
) -> None:
    await filled(client)
    played = Played(client)
    await served(played).save(SPECS, tmp_path)
    before = {one.name for one in (await client.get_collections()).collections}

    with pytest.raises(ReleaseMismatch, match=r"'r1' with 2 dimensions, this is r2"):
        await served(played).restore({"tags": spec(release="r2")}, tmp_path, OWNER)
    with pytest.raises(ReleaseMismatch, match="is of cluster c1, topic tags, this is another"):
        await served(played).restore(SPECS, tmp_path, "another")
    with pytest.raises(UserError, match="names no file of knowledge"):
        await served(played).restore({"knowledge": spec("knowledge")}, tmp_path, OWNER)
    with pytest.raises(UserError, match=r"backup.json is no copy of a memory"):
        await served(played).restore(SPECS, tmp_path / "elsewhere", OWNER)
    played.broken = "exemplars"
    with pytest.raises(DependencyDown, match="answered 503"):
        await served(played).restore(SPECS, tmp_path, OWNER)
    played.broken = ""
    (tmp_path / "tags.snapshot").write_bytes(b"half")
    with pytest.raises(UserError, match=r"tags.snapshot is damaged"):
        await served(played).restore(SPECS, tmp_path, OWNER)

    assert {one.name for one in (await client.get_collections()).collections} == before
    assert (await reader(client).keys()) == {"a"}


async def test_a_file_outside_the_folder_is_not_read(client: Kept, tmp_path: Path) -> None:
    about = {"release": "r1", "dimension": 2, "copies": {"tags": {"file": "../../etc/passwd", "sha256": "0"}}}
    (tmp_path / "backup.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="names no file of tags"):
        await served(Played(client)).restore({"tags": spec()}, tmp_path, OWNER)
