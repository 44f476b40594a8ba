"""Following the topic `releases`: which releases there are, and which of them is in force."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record, Tombstone
from tagbus.stream.contract.release import ACTIVE, Active, ReleaseRecord, decode_release
from tagbus.stream.errors import DependencyDown, MemoryLost, Poison, Retryable
from tagbus.stream.index.bootstrap import GROWTH_SECONDS, METADATA_SECONDS, Place, watermarks
from tagbus.stream.kafka import refusal
from tagbus.stream.kafka.message import record_of

log = logging.getLogger(__name__)

MOST = 100
ABSENT = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})


@dataclass(frozen=True, slots=True)
class Releases:
    """What the topic says: the records by name, and which one was made active."""

    records: Mapping[str, ReleaseRecord] = field(default_factory=dict)
    active: Active | None = None

    def after(self, record: Record) -> "Releases":
        """The same after one more record. Raises Poison for one that is no event."""
        match decode_release(record):
            case Tombstone(key) if key == ACTIVE:
                return replace(self, active=None)
            case Tombstone(key):
                return replace(self, records={name: one for name, one in self.records.items() if name != key})
            case Active() as active:
                return replace(self, active=active)
            case ReleaseRecord() as one:
                return replace(self, records={**self.records, one.release.name: one})


class ReleaseFollower:
    """Tells `changed` what the topic says: once when it is read to its end, then after each change.

    A topic that is not there says nothing: nobody uses releases then, and it is looked for again every 30 s.
    """

    def __init__(self, settings: Settings, changed: Callable[[Releases], None]) -> None:
        self._settings = settings
        self._changed = changed
        self._releases = Releases()
        self._ends: dict[Place, int] = {}
        self._positions: dict[Place, int] = {}
        self._told = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="releases")

    async def run(self) -> None:
        """Follow until cancelled. Raises DependencyDown when no broker answers at the start, UserError when Kafka
        refuses, MemoryLost when the topic is another one now."""
        loop = asyncio.get_running_loop()
        consumer = Consumer(self._config())
        try:
            await loop.run_in_executor(self._thread, self._assign, consumer)
            self._tell(self._releases)
            asked = loop.time()
            while True:
                messages = await loop.run_in_executor(self._thread, consumer.consume, MOST, 0.2)
                self._tell(self._apply(messages))
                if loop.time() - asked > GROWTH_SECONDS:
                    asked = loop.time()
                    await self._look_again(loop, consumer)
        finally:
            await loop.run_in_executor(self._thread, consumer.close)
            self._thread.shutdown()

    async def _look_again(self, loop: asyncio.AbstractEventLoop, consumer: Consumer) -> None:
        try:
            await loop.run_in_executor(self._thread, self._assign, consumer)
        except Retryable as error:
            log.warning("releases: %s", error)

    def _tell(self, releases: Releases) -> None:
        """Report when all is read that was there at the start, then every change."""
        fresh = releases != self._releases
        self._releases = releases
        if any(self._positions[place] < end for place, end in self._ends.items()):
            return
        if fresh or not self._told:
            self._told = True
            self._changed(releases)

    def _apply(self, messages: Sequence[Message]) -> Releases:
        releases = self._releases
        for message in messages:
            place, offset = (message.topic() or "", message.partition() or 0), message.offset() or 0
            error = message.error()
            if error is None:
                try:
                    releases = releases.after(record_of(message))
                except Poison as poison:
                    log.warning("skipped %s:%d:%d: %s", *place, offset, poison)
                self._positions[place] = offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                self._positions[place] = offset
            else:
                self._fail(error)
        return releases

    def _fail(self, error: KafkaError) -> None:
        topic = self._settings.topics.releases
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise MemoryLost(f"topic {topic} is another one now: {error.str()}; restart to read it anew")
        if not refusal.of_group(error) and (missing := refusal.denied(error, self._settings.kafka, topic)):
            raise missing
        log.warning("releases: %s", error.str())

    def _assign(self, consumer: Consumer) -> None:
        """Read every partition that is not read yet from its beginning."""
        fresh = []
        for place in self._places(consumer):
            if place not in self._ends:
                low, self._ends[place] = watermarks(self._settings.kafka, consumer, place)
                self._positions[place] = low
                fresh.append(TopicPartition(*place, low))
        if fresh:
            consumer.incremental_assign(fresh)

    def _places(self, consumer: Consumer) -> list[Place]:
        kafka, topic = self._settings.kafka, self._settings.topics.releases
        try:
            found = consumer.list_topics(topic, METADATA_SECONDS).topics[topic]
        except KafkaException as error:
            reason = f"no broker answered for topic {topic}: {error.args[0].str()}"
            raise refusal.locked_out(kafka) or DependencyDown(reason) from None
        if found.error is None:
            return [(topic, partition) for partition in sorted(found.partitions)]
        if found.error.code() in ABSENT:
            return []
        raise refusal.denied(found.error, kafka, topic) or DependencyDown(f"topic {topic}: {found.error.str()}")

    def _config(self) -> dict[str, str | int | float | bool]:
        return {
            **self._settings.kafka.client(),
            "log_level": 2,
            # librdkafka wants a group; nothing joins it and nothing is committed to it.
            "group.id": f"{self._settings.kafka.group}-releases",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
        }
