"""Bootstrap: read the memory topics to their end before any content, then follow them.

The reader is in no group: each process that writes a memory needs every partition. The end is known by
`_PARTITION_EOF`, never by counting: transaction markers count in the high watermark and are never delivered.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, Protocol, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from tagbus.stream import telemetry
from tagbus.stream.config import KafkaSettings, Settings
from tagbus.stream.errors import DependencyDown, MemoryLost, Retryable, UserError
from tagbus.stream.index.apply import Kept, MemoryRecord
from tagbus.stream.kafka import refusal
from tagbus.stream.kafka.message import record_of
from tagbus.stream.memory.kinds import KINDS
from tagbus.stream.retry import until_answered

log = logging.getLogger(__name__)

# A chunk is encoded as one batch: long enough to sort by length, short enough that progress shows.
CHUNK = 512
METADATA_SECONDS = 10.0
_NONE = "no broker answered"
# How often the broker is asked whether a memory topic has got more partitions.
GROWTH_SECONDS = 30.0

P = ParamSpec("P")
R = TypeVar("R")

Place = tuple[str, int]
Offsets = dict[Place, int]
Progress = Callable[[Mapping[Place, int]], Awaitable[None]]


@dataclass(slots=True)
class _Partition:
    """How far one partition is applied: `position` is the next offset, `end` its high watermark at the start."""

    position: int
    end: int

    @property
    def caught_up(self) -> bool:
        return self.position >= self.end


@dataclass(slots=True)
class _Reading:
    """What one reading of the topics has seen so far."""

    kept: Kept
    partitions: dict[Place, _Partition] = field(default_factory=dict)


class Applier(Protocol):
    """What the records go to: a Projection, or TagChanges. Its methods are described there."""

    def empty(self) -> Kept: ...

    async def apply(self, records: Sequence[MemoryRecord]) -> Kept: ...

    async def sweep(self, kept: Mapping[str, set[str]]) -> None: ...


class Follower:
    """Reads the memory topics into a projection; `ready` is set when the start gate may open."""

    def __init__(
        self,
        settings: Settings,
        projection: Applier,
        resume: Mapping[Place, int] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """`resume`: next offsets to go on from; without them all is read and what was not seen is swept from memory.

        `progress` is told the next offsets after each chunk that has been applied.
        """
        self._settings = settings
        self._projection = projection
        self._resume = resume
        self._progress = progress
        self._kinds = {KINDS[kind].topic(settings.topics): kind for kind in projection.empty()}
        self._reading = _Reading(projection.empty())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="memory")
        self.ready = asyncio.Event()

    def taxonomy(self) -> dict[str, int]:
        """Applied offset of each partition of `tags`: all up to it shows in memory. -1: nothing yet."""
        return {
            str(partition): state.position - 1
            for (topic, partition), state in sorted(self._reading.partitions.items())
            if topic == self._settings.topics.tags
        }

    def applied(self) -> tuple[tuple[Place, int], ...]:
        """The next offset of each partition of all memory topics: what differs where anything was applied since."""
        return tuple((place, state.position) for place, state in tuple(self._reading.partitions.items()))

    def remaining(self) -> int:
        """Offsets still to be read before the gate opens."""
        return sum(max(0, state.end - state.position) for state in self._reading.partitions.values())

    async def run(self) -> None:
        """Read to the end, open the gate, follow until cancelled.

        Raises UserError when a memory topic does not exist, MemoryLost when its offsets are out of range.
        """
        consumer = Consumer(self._config())
        try:
            await self._call(self._assign, consumer)
            await self._read(consumer)
        finally:
            await self._call(consumer.close)
            self._thread.shutdown()

    async def _read(self, consumer: Consumer) -> None:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        while True:
            messages = await self._call(consumer.consume, CHUNK, 0.2)
            await self._apply(messages)
            if not self.ready.is_set() and all(state.caught_up for state in self._reading.partitions.values()):
                await self._open()
            if loop.time() - asked > GROWTH_SECONDS:
                asked = loop.time()
                await self._look_for_growth(consumer)
                await self._tell()

    async def _look_for_growth(self, consumer: Consumer) -> None:
        """Assign partitions that a memory topic has got meanwhile; a broker that is away now is asked again later."""
        try:
            await self._call(self._assign, consumer)
        except Retryable as error:
            log.warning("memory topics: %s", error)

    async def _open(self) -> None:
        if self._resume is None:
            sweep = partial(self._projection.sweep, self._reading.kept)
            await until_answered(sweep, self._settings.retry, "memory")
        self._reading.kept = self._projection.empty()
        self.ready.set()
        await self._tell()
        log.info("memory is complete: start gate open, taxonomy=%s", self.taxonomy())

    async def _apply(self, messages: Sequence[Message]) -> None:
        """Apply one chunk; positions move only when all of it is in memory."""
        positions: Offsets = {}
        records = []
        for message in messages:
            if not _delivered(self._settings.kafka, message):
                positions.update(_end_of(message))
                continue
            positions[_place(message)] = _offset(message) + 1
            records.append(self._record(message))
        if records:
            kept = await self._until_applied(records)
            if not self.ready.is_set():
                self._remember(records, kept)
        for place, position in positions.items():
            self._reading.partitions[place].position = position
        if records:
            telemetry.MEMORY_APPLIED.inc(len(records))
            await self._tell()

    def _remember(self, records: Sequence[MemoryRecord], kept: Kept) -> None:
        for item in records:
            if item.record.key is not None:
                self._reading.kept[item.kind].discard(item.record.key.decode(errors="replace"))
        for kind, keys in kept.items():
            self._reading.kept[kind].update(keys)

    async def _until_applied(self, records: Sequence[MemoryRecord]) -> Kept:
        """A dependency that is down is waited for: applying again is harmless, and skipping would lose tags."""
        return await until_answered(lambda: self._projection.apply(records), self._settings.retry, "memory")

    async def _tell(self) -> None:
        """Report progress; what could not be reported now is covered by the next report."""
        if self._progress is None:
            return
        try:
            await self._progress({place: state.position for place, state in self._reading.partitions.items()})
        except Retryable as error:
            log.warning("memory: %s", error)

    def _record(self, message: Message) -> MemoryRecord:
        topic, partition = _place(message)
        return MemoryRecord(self._kinds[topic], record_of(message), f"{topic}:{partition}:{_offset(message)}")

    def _assign(self, consumer: Consumer) -> None:
        """Assign every partition that is not yet assigned, and capture where it ends now."""
        fresh = []
        for place in self._places(consumer):
            if place in self._reading.partitions:
                continue
            low, high = watermarks(self._settings.kafka, consumer, place)
            start = low if self._resume is None else self._resume.get(place, low)
            if not low <= start <= high:
                raise MemoryLost(f"{place[0]}:{place[1]} has offsets {low} to {high}, memory was built up to {start}")
            self._reading.partitions[place] = _Partition(start, high)
            fresh.append(TopicPartition(*place, start))
        if fresh:
            consumer.incremental_assign(fresh)

    def _places(self, consumer: Consumer) -> list[Place]:
        return [place for topic in self._kinds for place in partitions(self._settings.kafka, consumer, topic)]

    def _config(self) -> dict[str, str | int | float | bool]:
        return {
            **self._settings.kafka.client(),
            # What fails for good is an error of the call; librdkafka's own lines would be 20 a second.
            "log_level": 2,
            # librdkafka wants a group; nothing joins it and nothing is committed to it.
            "group.id": f"{self._settings.kafka.group}-memory",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
        }

    async def _call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The consumer is synchronous and belongs to one thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: function(*args, **kwargs))


def partitions(kafka: KafkaSettings, consumer: Consumer, topic: str) -> list[Place]:
    """Every partition of a topic. Raises UserError when there is no such topic or Kafka refuses to show it,
    DependencyDown without a broker."""
    try:
        found = consumer.list_topics(topic, METADATA_SECONDS).topics[topic]
    except KafkaException as error:
        raise refusal.locked_out(kafka) or DependencyDown(f"{_NONE} for topic {topic}: {error.args[0].str()}") from None
    if found.error is not None and (missing := refusal.denied(found.error, kafka, topic)):
        raise missing
    if found.error is not None or not found.partitions:
        raise UserError(f"topic {topic} is not there; `tagbus topics create` makes it")
    return [(topic, partition) for partition in sorted(found.partitions)]


def watermarks(kafka: KafkaSettings, consumer: Consumer, place: Place) -> tuple[int, int]:
    """First offset and next offset of a partition, asked of the broker. Raises DependencyDown."""
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(*place), METADATA_SECONDS)
    except KafkaException as error:
        reason = f"{_NONE} for {place[0]}:{place[1]}: {error.args[0].str()}"
        raise refusal.denied(error.args[0], kafka, place[0]) or DependencyDown(reason) from None
    return low, high


def _delivered(kafka: KafkaSettings, message: Message) -> bool:
    """True for a record, False for an end of partition or an error that librdkafka mends itself.

    Raises MemoryLost when the offset is out of range, UserError when the topic is gone or may not be read.
    """
    error = message.error()
    if error is None:
        return True
    if error.code() == KafkaError._AUTO_OFFSET_RESET:
        raise MemoryLost(f"{message.topic()}:{message.partition()}: {error.str()}; restart to rebuild the memory")
    if error.code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}:
        raise UserError(f"topic {message.topic()} is not there; `tagbus topics create` makes it")
    if not refusal.of_group(error) and (missing := refusal.denied(error, kafka, message.topic() or "")):
        raise missing
    if error.code() != KafkaError._PARTITION_EOF:
        log.warning("memory topics: %s", error.str())
    return False


def _end_of(message: Message) -> Offsets:
    error = message.error()
    if error is not None and error.code() == KafkaError._PARTITION_EOF:
        return {_place(message): _offset(message)}
    return {}


def _place(message: Message) -> Place:
    topic, partition = message.topic(), message.partition()
    if topic is None or partition is None:
        raise DependencyDown(f"a record without a partition: {message.error()}")
    return topic, partition


def _offset(message: Message) -> int:
    offset = message.offset()
    if offset is None:
        raise DependencyDown(f"a record without an offset: {message.error()}")
    return offset
