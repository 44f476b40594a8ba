"""Titles, and loads for a worker at full speed or at a fixed rate, with the latency of each content.

Latency is from a record's timestamp until its result is read under read_committed, some milliseconds after its commit.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.app.data.data_folder import DataFolder
from tagbus.stream.app.data.examples import example
from tagbus.stream.app.places import files
from tagbus.stream.app.places.folders import base_release, snapshot_folder
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Content
from tagbus.stream.index import snapshot
from tagbus.stream.kafka.reader import TopicReader
from tagbus.stream.kafka.writer import TopicWriter

# Contents that wait at full load: four batches at the tagger and about as many behind them.
WAITING = 1_000
# Least results of a full load: some batches, if each takes seconds.
LEAST = 500
# Longest wait for a result.
SECONDS = 120.0
# Warm-up of each load, which is not counted: an idle worker has pages to read and caches to fill.
SETTLE_SECONDS = 2.0


def titles(data: Path, count: int) -> tuple[str, list[Content]]:
    """Return the source of the titles, and the titles as contents with ids that are not in memory."""
    if (data / "test.tsv").exists():
        rows = list(DataFolder(data).exemplars("test"))
        source = "yso-titles/test.tsv"
    else:
        rows = files.all_of(example("exemplars.jsonl"), files.exemplar_of)
        source = "examples/exemplars.jsonl"
    return source, [Content(id=f"bench-{n}", title=row.title, text=row.text) for n, row in enumerate(rows[:count])]


def worker_settings(base: Settings, name: str, folder: Path) -> Settings:
    """Return settings with separate topics, group and snapshot for a worker."""
    words = (word for word in base.topics.model_dump() if isinstance(getattr(base.topics, word), str))
    return base.model_copy(
        update={
            "kafka": base.kafka.model_copy(update={"group": name, "transactional_id": name, "instance": name}),
            "topics": base.topics.model_copy(update={word: f"{name}-{word}" for word in words}),
            "releases": base.releases.model_copy(update={"folder": folder / name}),
        }
    )


async def keep(stack: TaggingStack, settings: Settings) -> None:
    """Save a stack's memory as the snapshot of a worker with empty memory topics: nothing is re-encoded."""
    place = snapshot_folder(settings, base_release(settings).name)
    assert place is not None
    place.mkdir(parents=True)
    names = settings.topics
    topics = (names.tags, names.exemplars, names.knowledge)
    starts = {(topic, partition): 0 for topic in topics for partition in range(names.partitions)}
    await snapshot.save(place, stack.memory, starts, snapshot.origin(settings))


class Load:
    """The load of one worker. A context manager; `doubled` counts repeated results."""

    def __init__(self, settings: Settings, contents: Sequence[Content]) -> None:
        self._contents = contents
        self._reader = TopicReader(settings.kafka)
        self._reader.discover([settings.topics.tagged], "end")
        self._writer = TopicWriter(settings.kafka, settings.topics.content)
        self._waiting: dict[bytes, float] = {}
        self._last = time.monotonic()
        self.sent = 0
        self.doubled = 0

    def __enter__(self) -> Self:
        # The first fetch opens the connections.
        self._reader.read(1, 1.0)
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)
        self._reader.close()

    @property
    def waiting(self) -> int:
        """Contents without a result yet."""
        return len(self._waiting)

    def fill(self, count: int = WAITING, most: float = math.inf) -> None:
        """Send contents until so many wait, at most `most` in all."""
        while len(self._waiting) < count and self.sent < most:
            self._send()

    def read(self) -> list[float]:
        """Return the latency in seconds of results that arrive within milliseconds. Raises TimeoutError if none has
        arrived for too long."""
        messages = self._reader.read(1_000, 0.005).messages
        now = time.time()
        if messages or not self._waiting:
            self._last = time.monotonic()
        elif time.monotonic() - self._last > SECONDS:
            raise TimeoutError(f"{len(self._waiting)} contents wait, and no result for {SECONDS:.0f} s")
        found = [self._waiting.pop(message.key() or b"", None) for message in messages]
        self.doubled += found.count(None)
        return [now - sent for sent in found if sent is not None]

    def drain(self) -> None:
        """Wait until nothing waits."""
        while self._waiting:
            self.read()

    def full(self, seconds: float) -> float:
        """Measure contents a second at full load, over so many seconds and LEAST results."""
        first, begun = self.sent - self.waiting, time.monotonic()
        while self.sent - self.waiting == first or time.monotonic() < begun + SETTLE_SECONDS:
            self.fill()
            self.read()
        begun, counted = time.monotonic(), 0
        while (now := time.monotonic()) < begun + seconds or counted < LEAST:
            self.fill()
            counted += len(self.read())
        self.drain()
        return counted / (now - begun)

    def at(self, rate: float, seconds: float) -> list[float]:
        """Measure the latency of each content at an even rate."""
        took: list[float] = []
        begun, first = time.monotonic(), self.sent
        while (passed := time.monotonic() - begun) < seconds + SETTLE_SECONDS:
            while self.sent - first < passed * rate:
                self._send()
            some = self.read()
            if passed > SETTLE_SECONDS:
                took += some
        while self._waiting:
            took += self.read()
        return took

    def _send(self) -> None:
        one = self._contents[self.sent % len(self._contents)]
        record = encode_record(one.model_copy(update={"id": f"c{self.sent}"}))
        self._waiting[record.key or b""] = time.time()
        self._writer.send(record)
        self.sent += 1
