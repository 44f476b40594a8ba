"""Shared memory: an indexer fills it, workers wait for it."""

import asyncio
import time
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient

from tagbus.stream.app import components
from tagbus.stream.app.releases.building import build_shared
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Content, Tag, TaggedContent
from tagbus.stream.contract.release import ReleaseRecord
from tagbus.stream.memory.qdrant import client as connection
from tagbus.stream.memory.qdrant.client import Server
from tests.app.releases.parts import SECOND, SECONDS, active, recorded, running, send, settings_at, until
from tests.releases import SHIPPED, Bus
from tests.support import produce

pytestmark = pytest.mark.kafka


class Shared(AsyncQdrantClient):
    """Qdrant in this process, shared by a builder and a worker: neither closes it."""

    async def close(self, grpc_grace: float | None = None, **_: object) -> None:
        """It stays open."""


def shared(client: Shared, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The same with the memory in this Qdrant."""

    monkeypatch.setattr(connection, "connect", lambda _: Server(client, "memory"))
    return settings.model_copy(update={"memory": settings.memory.model_copy(update={"kind": "server"})})


async def test_with_a_shared_memory_a_new_tag_is_matched_literally_with_the_version_that_shows_it(
    bus: Bus, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = shared(Shared(":memory:"), settings_at(bus, folder), monkeypatch)
    settings = components.switched(settings, {"literal": {"enabled": True}})
    builder = asyncio.create_task(build_shared(settings, ReleaseRecord(release=SHIPPED), 1.0))
    text = Content(id="a", title="A study of zymurgy and nothing else")
    try:
        async with running(settings) as manager, asyncio.timeout(SECONDS):
            await manager.tag([text])
            before = manager.versions().taxonomy
            new = encode_record(Tag(id="new", name="brewing", aliases=("zymurgy",)))
            produce(bus.address, bus.names["tags"], [(new.key, new.value, [])])
            while manager.versions().taxonomy == before:
                await asyncio.sleep(0.02)
            (result,) = await manager.tag([text])
            assert isinstance(result, TaggedContent)
            assert {tag.id: tag.evidence.matched for tag in result.tags}["new"] == {"literal": "zymurgy"}
    finally:
        builder.cancel()
        await asyncio.gather(builder, return_exceptions=True)


async def test_with_a_shared_memory_a_builder_fills_it_and_the_worker_goes_over(
    bus: Bus, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Shared(":memory:")
    settings = shared(client, settings_at(bus, folder), monkeypatch)
    fresh = recorded(folder)
    builders = [
        asyncio.create_task(build_shared(settings, one, 1.0)) for one in (ReleaseRecord(release=SHIPPED), fresh)
    ]
    try:
        async with running(settings) as manager:
            send(bus, active(SECOND))
            await until(manager, SECOND)
            names = {one.alias_name for one in (await client.get_aliases()).aliases}
            assert {f"tagbus-{name}-tags" for name in (SHIPPED.name, SECOND)} <= names
            (result,) = await manager.tag([Content(id="a", title="The law of the sea")])
            assert isinstance(result, TaggedContent)
            assert (result.versions.release, result.tags[0].id) == (SECOND, "law")
    finally:
        for builder in builders:
            builder.cancel()
        await asyncio.gather(*builders, return_exceptions=True)


async def test_a_worker_whose_builder_is_gone_says_so_after_a_while(
    bus: Bus, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = shared(Shared(":memory:"), settings_at(bus, folder), monkeypatch)
    await build_shared(settings, ReleaseRecord(release=SHIPPED), None)
    async with running(settings) as manager, asyncio.timeout(SECONDS):
        await until(manager, SHIPPED.name)
        assert manager.problem() == ""
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 600)
        assert "TAGBUS_MEMORY__MAX_AGE_SECONDS=300: `tagbus index` does not run" in manager.problem()
