"""A small memory for the tests of the tagger."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tagbus.stream.app.filling import cached_memory, save_memories
from tagbus.stream.config import Settings
from tagbus.stream.index.apply import Projection
from tagbus.stream.memory import Memory
from tests.cli.harness import Slice, cut
from tests.index.parts import encoder, memory, record


@pytest.fixture(scope="module")
def cutting(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    """A small slice of the examples, and its embeddings."""
    some = cut(tmp_path_factory.mktemp("slice"))

    async def keep() -> None:
        built = memory()
        await Projection(encoder(), built).apply(
            [record(event) for events in (some.tags, some.exemplars) for event in events]
        )
        await save_memories(some.folder, [built])
        await built.close()

    asyncio.run(keep())
    return some


@pytest.fixture
async def filled(cutting: Slice) -> AsyncIterator[Memory]:
    """A memory of 200 tags and 300 exemplars."""
    built = await cached_memory(cutting.folder, Settings.model_construct(), encoder().release)
    yield built
    await built.close()
