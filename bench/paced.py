"""A load for a worker, so many contents waiting at any time; and how long each content takes.

A time is from a record's time until its result is read under read_committed, some milliseconds after its commit.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Content
from tagbus.stream.kafka.reader import TopicReader
from tagbus.stream.kafka.writer import TopicWriter

# How long no result may come.
SECONDS = 120.0


def place_of(base: Settings, name: str, folder: Path) -> Settings:
    """Topics, group and snapshot of a worker of its own."""
    words = (word for word in base.topics.model_dump() if isinstance(getattr(base.topics, word), str))
    return base.model_copy(
        update={
            "kafka": base.kafka.model_copy(update={"group": name, "transactional_id": name, "instance": name}),
            "topics": base.topics.model_copy(update={word: f"{name}-{word}" for word in words}),
            "releases": base.releases.model_copy(update={"folder": folder / name}),
        }
    )


class Load:
    """What one worker is given. A context manager; `doubled` counts results that came again."""

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
        """Contents whose results have not come."""
        return len(self._waiting)

    def fill(self, count: int, most: float = math.inf) -> None:
        """Send contents until so many wait, and `most` in all."""
        while len(self._waiting) < count and self.sent < most:
            self._send()

    def read(self) -> list[float]:
        """Results that are there or come within milliseconds, as the seconds that each took. Raises TimeoutError where
        none has come for long."""
        messages = self._reader.read(1_000, 0.005).messages
        now = time.time()
        if messages or not self._waiting:
            self._last = time.monotonic()
        elif time.monotonic() - self._last > SECONDS:
            raise TimeoutError(f"{len(self._waiting)} contents wait, and no result for {SECONDS:.0f} s")
        found = [self._waiting.pop(message.key() or b"", None) for message in messages]
        self.doubled += found.count(None)
        return [now - sent for sent in found if sent is not None]

    def _send(self) -> None:
        one = self._contents[self.sent % len(self._contents)]
        record = encode_record(one.model_copy(update={"id": f"c{self.sent}"}))
        self._waiting[record.key or b""] = time.time()
        self._writer.send(record)
        self.sent += 1
