"""`tagbus index` as a service: its probes while it fills, follows, and waits for the server."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import TypeVar

import pytest
from qdrant_client import AsyncQdrantClient

from tagbus.stream import telemetry
from tagbus.stream.app import indexing, probe
from tagbus.stream.app.indexing import IndexService
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Tag
from tagbus.stream.errors import DependencyDown
from tagbus.stream.memory.qdrant import client as connection
from tagbus.stream.memory.qdrant.client import Server
from tests.conftest import Broker
from tests.releases import Bus
from tests.support import produce

pytestmark = pytest.mark.kafka

T = TypeVar("T")
SECONDS = 120.0


class Flaky(Server):
    """Does not answer while `down`."""

    down = False

    async def call(self, call: Awaitable[T]) -> T:
        if Flaky.down:
            raise DependencyDown("Qdrant does not answer")
        return await Server.call(self, call)


async def until(condition: Callable[[], bool]) -> None:
    """Wait, off the loop, for what blocks: readiness asks this loop a question."""
    async with asyncio.timeout(SECONDS):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)


async def test_its_probes_follow_what_it_does(kafka: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    client = AsyncQdrantClient(":memory:")
    monkeypatch.setattr(connection, "connect", lambda _: Flaky(client, "memory"))
    monkeypatch.setattr(indexing, "REPORT_SECONDS", 0.02)
    monkeypatch.setattr(probe, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(Flaky, "down", False)
    bus = Bus.made(kafka.address)
    tags = [encode_record(Tag(id=f"t{n}", name=f"subject {n}")) for n in range(3)]
    produce(bus.address, bus.names["tags"], [(one.key, one.value, []) for one in tags])
    memory = bus.settings.memory.model_copy(update={"kind": "server"})
    service = IndexService(bus.settings.model_copy(update={"memory": memory}))
    assert service.not_ready() == ["the memory topics are not read yet"]

    running = asyncio.create_task(service.run())
    try:
        await until(lambda: not service.not_ready())
        assert service.not_live() == []
        await until(lambda: telemetry.TAXONOMY_TAGS._value.get() == 3)

        Flaky.down = True
        await until(lambda: service.not_ready() == ["Qdrant does not answer"])
        assert service.not_live() == []
        Flaky.down = False
        await until(lambda: not service.not_ready())
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_loop_that_no_longer_turns_is_not_live(monkeypatch: pytest.MonkeyPatch) -> None:
    service = IndexService(Settings())
    monkeypatch.setattr(indexing.time, "monotonic", partial(float, "inf"))
    assert "the event loop has been stalled for" in service.not_live()[0]


async def test_while_a_memory_is_held_it_is_not_ready_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    service = IndexService(Settings())
    opened = asyncio.Event()
    opened.set()
    held = SimpleNamespace(ready=opened, held="10 of 10 tags would be retired")
    monkeypatch.setattr(service, "_follower", held)
    monkeypatch.setattr(service, "_probe", SimpleNamespace(problem=lambda: ""))
    assert service.not_ready() == ["10 of 10 tags would be retired"]
