"""A steady load of contents, and the latency until a read_committed reader has their outputs."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Final

from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Tombstone, decode_tagged, encode_record
from tagbus.stream.contract.events import Content, TaggedContent
from tagbus.stream.errors import DependencyDown
from tagbus.stream.kafka.message import record_of
from tagbus.stream.kafka.reader import TopicReader
from tagbus.stream.kafka.writer import TopicWriter

POLL_SECONDS: Final = 0.05
PATIENCE_SECONDS: Final = 180.0

# Called on every iteration with the seconds since the start.
Act = Callable[[float], None]


def idle(_: float) -> None:
    """Do nothing under the load."""


class Load:
    """Publishes contents under unique ids and reads their outputs until `close`.

    `open`: the publication time of each content without an output yet, Unix seconds. `degraded`, `releases`: results by
    reason and by release. `judged`: the number of judged contents; `tokens`: the tokens spent on them.
    """

    def __init__(self, settings: Settings, contents: Sequence[Content], prefix: str = "acceptance-") -> None:
        self._settings = settings
        self._contents = cycle(contents)
        self._prefix = prefix
        self.published = 0
        self.open: dict[str, float] = {}
        self.degraded: Counter[str] = Counter()
        self.releases: Counter[str] = Counter()
        self.tokens = self.judged = 0
        self._took: list[float] = []
        names = settings.topics
        self._reader = TopicReader(settings.kafka)
        self._reader.discover([names.tagged, names.dead_letters], "end")

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()

    def steady(self, count: int, rate: float, act: Act = idle) -> list[float]:
        """Publish this many contents at `rate` a second. Returns the seconds from record time to tags of each content
        with an output so far; the others are `open`."""
        self._took = []
        started, first = time.monotonic(), self.published
        with TopicWriter(self._settings.kafka, self._settings.topics.content) as writer:
            while self.published < first + count:
                now = time.monotonic()
                due = started + (self.published - first) / rate
                if now < due:
                    self._read(min(POLL_SECONDS, due - now))
                    act(now - started)
                    continue
                content = next(self._fresh())
                self.open[content.id] = time.time()
                writer.send(encode_record(content))
                self.published += 1
        return self._took

    def until_out(self, act: Act = idle) -> list[float]:
        """Wait until every content has an output, and return the seconds as `steady` does. Raises DependencyDown if
        none arrives for three minutes."""
        started = last = time.monotonic()
        while self.open:
            act(time.monotonic() - started)
            if self._read(POLL_SECONDS):
                last = time.monotonic()
            elif time.monotonic() > last + PATIENCE_SECONDS:
                raise DependencyDown(f"{len(self.open)} contents have no output, and none arrived for three minutes")
        return self._took

    def _fresh(self) -> Iterator[Content]:
        yield next(self._contents).model_copy(update={"id": f"{self._prefix}{self.published}"})

    def _read(self, seconds: float) -> int:
        """Record new outputs. Returns their number."""
        messages = self._reader.read(500, seconds).messages
        for message in messages:
            record = record_of(message)
            sent = self.open.pop((record.key or b"").decode(errors="replace"), None)
            if sent is not None:
                self._took.append(time.time() - sent)
            if message.topic() == self._settings.topics.tagged:
                event = decode_tagged(record)
                if not isinstance(event, Tombstone):
                    self._note(event)
        return len(messages)

    def _note(self, event: TaggedContent) -> None:
        self.releases[event.versions.release] += 1
        self.degraded.update(one.reason for one in event.degraded)
        if event.usage is not None and event.usage.calls:
            self.judged += 1
            self.tokens += event.usage.tokens_in + event.usage.tokens_out
