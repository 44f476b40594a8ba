"""A release manager over real topics, as a worker has it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import REGISTRY

from tagbus.stream.app.releases.manager import ReleaseManager
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record
from tagbus.stream.contract.events import Tag
from tagbus.stream.contract.release import Active, ReleaseRecord, encode_release
from tagbus.stream.encoder.release import load_release
from tests.releases import Bus
from tests.support import produce

SECOND = "second-1"
SECONDS = 120.0
TAGS = [Tag(id="bees", name="beekeeping"), Tag(id="law", name="law of the sea")]


def settings_at(bus: Bus, folder: Path) -> Settings:
    return bus.settings.model_copy(update={"releases": bus.settings.releases.model_copy(update={"folder": folder})})


def send(bus: Bus, *records: Record) -> None:
    produce(bus.address, bus.names["releases"], [(one.key, one.value, []) for one in records])


def active(name: str) -> Record:
    return encode_release(Active(release=name, time=datetime.now(UTC)))


def recorded(folder: Path) -> ReleaseRecord:
    return ReleaseRecord(release=load_release(folder / SECOND))


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[ReleaseManager]:
    manager = ReleaseManager(settings)
    task = asyncio.create_task(manager.run())
    try:
        async with asyncio.timeout(SECONDS):
            await manager.opened.wait()
        yield manager
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(manager: ReleaseManager, release: str) -> None:
    async with asyncio.timeout(SECONDS):
        while manager.versions().release != release:
            await asyncio.sleep(0.02)


def gauge(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0.0
