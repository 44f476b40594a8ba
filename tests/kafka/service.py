"""A worker's memory, tagger and start gate over real topics, as `tagbus run` has them."""

import asyncio
import threading
from collections.abc import Hashable, Sequence

from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Content
from tagbus.stream.index.apply import Projection
from tagbus.stream.index.bootstrap import Follower
from tagbus.stream.memory import Memory
from tagbus.stream.tagger import Outcome
from tests.index.parts import encoder
from tests.tagger.pipeline import tagger


class Service:
    """What a worker is given. No batch is tagged while `passes` is not set."""

    def __init__(self, given: Settings, kept: Memory) -> None:
        self.memory = kept
        self.follower = Follower(given, Projection(encoder(), kept))
        self.tagger = tagger(kept, taxonomy=self.follower.taxonomy, **given.tagger.model_dump(exclude={"calibration"}))
        self.following: asyncio.Task[None] | None = None
        self.passes = threading.Event()
        self.passes.set()

    async def gate(self) -> None:
        self.following = asyncio.create_task(self.follower.run())
        await self.follower.ready.wait()

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[Outcome]:
        while not self.passes.is_set():
            await asyncio.sleep(0.01)
        return await self.tagger.tag(contents, until)

    def revision(self) -> Hashable:
        return self.follower.applied()
