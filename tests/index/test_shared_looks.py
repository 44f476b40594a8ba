"""A shared memory as a command sees it, which looks for some seconds at most."""

import asyncio
from collections.abc import Callable, Mapping

from qdrant_client import AsyncQdrantClient

from tagbus.stream.index.shared import SharedMemory
from tests.conftest import Broker
from tests.index.sharing import SECONDS, opened, publish, settings_at, until, written
from tests.support import Layout

Topics = Callable[[Mapping[str, Layout]], dict[str, str]]


async def test_a_command_waits_for_a_writer_that_catches_up_and_not_for_ever(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient
) -> None:
    settings = settings_at(kafka, topics({"tags": 2, "exemplars": 2}))
    publish(kafka, settings.topics.tags, 3)
    async with written(settings, qdrant):
        pass
    publish(kafka, settings.topics.tags, 2, first=3)
    without = SharedMemory(settings, [await opened(qdrant)])
    await without.look(seconds=0.0)
    assert without.problem() == "its writer has 2 offsets left to apply"

    shared = SharedMemory(settings, [await opened(qdrant)])
    looking = asyncio.create_task(shared.look(SECONDS))
    await until(lambda: "offsets left to apply" in shared.problem())
    async with written(settings, qdrant):
        await looking
    assert shared.problem() == ""
    assert sum(offset + 1 for offset in shared.taxonomy().values()) == 5
