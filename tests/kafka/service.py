"""A worker's memory, tagger and start gate over real topics, as `tagbus run` has them."""

import asyncio
import threading
from collections.abc import Hashable, Sequence

from tagbus.stream.calibrate import uncalibrated
from tagbus.stream.config import RecallSettings, Settings
from tagbus.stream.contract.events import Content, TaggedContent
from tagbus.stream.index.apply import Projection
from tagbus.stream.index.bootstrap import Follower
from tagbus.stream.memory import Memory
from tagbus.stream.recall.graph import GraphRecall
from tagbus.stream.tagger import Failure, Pipeline, Tagger
from tagbus.stream.tagger.union import Recall
from tests.index.parts import encoder


class Service:
    """What a worker is given. No batch is tagged while `passes` is not set."""

    def __init__(self, given: Settings, kept: Memory) -> None:
        self.memory = kept
        self.follower = Follower(given, Projection(encoder(), kept))
        recall = Recall(GraphRecall(kept.tags, kept.exemplars, encoder().release.recall, RecallSettings(), 1))
        calibration = uncalibrated(Pipeline(encoder().release.name).fingerprint)
        self.tagger = Tagger(encoder(), recall, calibration, given.tagger, self.follower.taxonomy)
        self.following: asyncio.Task[None] | None = None
        self.passes = threading.Event()
        self.passes.set()

    async def gate(self) -> None:
        self.following = asyncio.create_task(self.follower.run())
        await self.follower.ready.wait()

    async def tag(self, contents: Sequence[Content]) -> list[TaggedContent | Failure]:
        while not self.passes.is_set():
            await asyncio.sleep(0.01)
        return await self.tagger.tag(contents)

    def revision(self) -> Hashable:
        return self.follower.applied()
