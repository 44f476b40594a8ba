"""A TopicReader for asyncio: reads in a dedicated thread and picks up partitions that are added later."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from tagbus.stream.errors import Retryable
from tagbus.stream.kafka.identity import TopicIds
from tagbus.stream.kafka.reader import Chunk, Positions, Start, TopicReader

log = logging.getLogger(__name__)

# Interval of checks for new partitions, or for a missing topic.
GROWTH_SECONDS = 30.0

P = ParamSpec("P")
R = TypeVar("R")


class TopicFollower:
    """Reads topics to their ends and follows them. An asynchronous context manager: entering assigns all partitions,
    leaving closes the reader."""

    def __init__(self, reader: TopicReader, topics: Sequence[str], start: Start = "beginning") -> None:
        """Takes ownership of `reader`. `start`: where the partitions begin, as in TopicReader.discover."""
        self._reader = reader
        self._topics = topics
        self._ids = TopicIds(reader.kafka, topics)
        self._start = start
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"follow-{topics[0]}")
        self._looked = 0.0

    async def __aenter__(self) -> Self:
        """Raises as TopicReader.discover does."""
        try:
            await self._discover()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    @property
    def positions(self) -> Positions:
        """The positions before the first read."""
        return self._reader.positions.copy()

    async def read(self, count: int, seconds: float, fill: float = 0.0) -> Chunk:
        """Like TopicReader.read, but first checks for new partitions every GROWTH_SECONDS. If no broker answers that
        check, it is repeated later. Raises also as TopicReader.check does once a topic is created again."""
        self._reader.check(self._ids.recreated())
        if asyncio.get_running_loop().time() - self._looked > GROWTH_SECONDS:
            try:
                await self._discover()
            except Retryable as error:
                log.warning("%s", error)
        return await self._call(self._reader.read, count, seconds, fill)

    async def _discover(self) -> None:
        self._looked = asyncio.get_running_loop().time()
        await self._call(self._reader.discover, self._topics, self._start)

    async def _close(self) -> None:
        await self._call(self._reader.close)
        self._thread.shutdown()

    async def _call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: function(*args, **kwargs))
