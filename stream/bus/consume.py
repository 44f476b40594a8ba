"""The poll thread: content in from Kafka, cut into batches, with the consumer always in its group.

A batch is a run of consecutive records of one partition, cut by count, by bytes and by time. While a batch finds no
room the consumer is not asked for more; beyond a while its partition is paused instead, because the group must be
served by polling (max.poll.interval.ms) and pausing costs about a second a cycle.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException, Message, TopicPartition

from tagbus.stream import telemetry
from tagbus.stream.bus import client
from tagbus.stream.bus.flight import Batch, Flight, Flights, Place, Source
from tagbus.stream.config import Settings
from tagbus.stream.contract.message import record_of
from tagbus.stream.errors import Fatal

log = logging.getLogger(__name__)

# How long one call may wait for a record: a stop, and a commit at least once, are seen within it.
IDLE_SECONDS = 0.05
# How long the consumer is left alone while nothing finds room, and while only one partition finds none: then the
# others wait for it, so it is paused earlier.
HOLD_SECONDS = 2.0
YIELD_SECONDS = 0.5
# What a record costs in memory besides its value and key, in bytes.
_RECORD_BYTES = 512


@dataclass(slots=True)
class _Buffer:
    """The records of one partition that are not in a batch yet. Times are of time.monotonic()."""

    epoch: int
    records: deque[tuple[Message, int]] = field(default_factory=deque)
    size: int = 0
    last: int = -1
    oldest: float = 0.0
    # Since when it could have been cut and there was no room.
    blocked: float | None = None
    paused: bool = False

    def add(self, message: Message, size: int, read: float) -> None:
        if not self.records:
            self.oldest = read
        self.records.append((message, size))
        self.size += size


class Poller:
    """The consumer and what it has read. All methods belong to the poll thread; `ready`, `turned`, `quit`, `group` and
    `commit` to any."""

    def __init__(self, settings: Settings, consumer: Consumer, flights: Flights, start: Callable[[Flight], None]):
        """`start` hands a batch to the tagger and returns at once."""
        self._settings = settings
        self._batch = settings.batch
        self._topic = settings.topics.content
        self._consumer = consumer
        self._flights = flights
        self._start = start
        # No batch may take more than its share, so that a partition cannot take all bytes.
        self._batch_bytes = max(1, settings.batch.in_flight_bytes // (2 * settings.batch.in_flight))
        self._buffers: dict[Place, _Buffer] = {}
        self._mean = 1024.0
        self._joined = False
        self._draining = False
        self._down: float | None = None
        self._asked = 0.0
        self._group: object = None
        self._commits: SimpleQueue[tuple[list[TopicPartition], Future[KafkaError | None]]] = SimpleQueue()
        self.turned = time.monotonic()
        # Set from any thread: whatever is waited for is given up.
        self.quit = False

    @property
    def ready(self) -> bool:
        """The group has given this worker its partitions (of many members some may hold none), and brokers answer."""
        return self._joined and self._down is None

    def group(self) -> object:
        """The group's metadata, as it was when the poll thread last looked (send.Member)."""
        return self._group

    def commit(self, offsets: list[TopicPartition], given_up: Callable[[], bool]) -> KafkaError | None:
        """Have the poll thread commit, and wait for it (send.Member)."""
        done: Future[KafkaError | None] = Future()
        self._commits.put((offsets, done))
        while not given_up():
            try:
                return done.result(0.1)
            except TimeoutError:
                continue
        return KafkaError(KafkaError._TIMED_OUT, "given up", retriable=True)

    def subscribe(self) -> None:
        """Join the group."""
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def broker_down(self) -> None:
        """librdkafka says that no broker answers."""
        self._down = self._down or time.monotonic()

    def turn(self) -> None:
        """Once round: what may be cut goes to the tagger, and more is read.

        Raises UserError when the topic is gone or may not be read, Fenced or Fatal when the client cannot go on.
        """
        self.touch()
        self._cut()
        self._resume()
        if self._hold():
            self._flights.wait(0.05)
            return
        read = time.monotonic()
        for message in self._consume():
            self._add(message, read)
        self._ask_broker()

    def touch(self) -> bool:
        """Show that the poll thread is alive and serve the publish thread; returns whether to go on waiting."""
        self.turned = time.monotonic()
        self._group = self._consumer.consumer_group_metadata()
        while not self._commits.empty():
            offsets, done = self._commits.get()
            done.set_result(self._commit(offsets))
        return not self.quit

    def drain(self, seconds: float) -> None:
        """Read no more, wait at most so long for what is under way, drop the rest and hold no partition."""
        self._draining = True
        self._buffers.clear()
        places = self._flights.places()
        self._pause(places)
        if not self._flights.drain(places, seconds, self._serve):
            log.warning("drain: deadline=%.1fs passed, what is left is read again by the next owner", seconds)
        self._flights.leave(self._flights.places())

    def _serve(self) -> bool:
        """Serve the group while draining; a record that comes all the same is not ours to commit."""
        self._consumer.consume(100, 0.05)
        return self.touch()

    def _commit(self, offsets: list[TopicPartition]) -> KafkaError | None:
        """With brokers away a commit takes as long as session.timeout.ms to fail, so then it is not begun."""
        if self._down is not None:
            return KafkaError(KafkaError._ALL_BROKERS_DOWN, "no broker answers", retriable=True)
        try:
            committed = self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as exception:
            return client.error_of(exception)
        return next((partition.error for partition in committed if partition.error is not None), None)

    def _cut(self) -> None:
        """Put under way what is due and finds room, the longest waiting first."""
        now = time.monotonic()
        for place, buffer in sorted(self._buffers.items(), key=lambda item: item[1].oldest):
            while self._due(buffer, now):
                if not self._flights.room(place, min(buffer.size, self._batch_bytes)):
                    buffer.blocked = buffer.blocked or now
                    break
                buffer.blocked = None
                self._start(self._flights.enter(self._take(place, buffer, now)))

    def _due(self, buffer: _Buffer, now: float) -> bool:
        return bool(buffer.records) and (self._full(buffer) or now >= buffer.oldest + self._batch.seconds)

    def _full(self, buffer: _Buffer) -> bool:
        return len(buffer.records) >= self._batch.contents or buffer.size >= self._batch_bytes

    def _take(self, place: Place, buffer: _Buffer, now: float) -> Batch:
        sources: list[Source] = []
        size, read = 0, buffer.oldest
        while buffer.records and len(sources) < self._batch.contents and (size < self._batch_bytes):
            message, bytes_ = buffer.records.popleft()
            sources.append(_source(place, message))
            size += bytes_
        buffer.size -= size
        buffer.oldest = now
        telemetry.BATCH_CONTENTS.observe(len(sources))
        return Batch(place, buffer.epoch, tuple(sources), size, read)

    def _hold(self) -> bool:
        """Whether to leave the consumer alone for now. Pauses the partitions that have been held for too long."""
        now = time.monotonic()
        crowded = self._flights.crowded()
        swamped = sum(buffer.size for buffer in self._buffers.values()) >= self._batch.in_flight_bytes
        limit = HOLD_SECONDS if crowded or swamped else YIELD_SECONDS
        held = {
            place: buffer
            for place, buffer in self._buffers.items()
            if buffer.blocked is not None and not buffer.paused and (swamped or self._full(buffer))
        }
        if not held:
            return False
        late = [place for place, buffer in held.items() if now - (buffer.blocked or now) >= limit]
        if late:
            self._pause(list(self._buffers) if swamped else late)
        return not late

    def _pause(self, places: Iterable[Place]) -> None:
        fresh = [place for place in places if place not in self._buffers or not self._buffers[place].paused]
        if not fresh:
            return
        self._consumer.pause([TopicPartition(*place) for place in fresh])
        for place in fresh:
            if place in self._buffers:
                self._buffers[place].paused = True
        self._count_paused()

    def _resume(self) -> None:
        swamped = sum(buffer.size for buffer in self._buffers.values()) >= self._batch.in_flight_bytes
        places = [
            place for place, buffer in self._buffers.items() if buffer.paused and not self._full(buffer) and not swamped
        ]
        if places:
            self._consumer.resume([TopicPartition(*place) for place in places])
            for place in places:
                self._buffers[place].paused = False
            self._count_paused()

    def _consume(self) -> list[Message]:
        """Records and errors; waits for the first where nothing is buffered, else until the next batch is due.

        Whatever is raised here ends the worker: the client throws away the records that it had in hand.
        """
        number = max(1, min(self._batch.contents, int(self._batch_bytes / self._mean)))
        with client.serving():
            if any(buffer.records for buffer in self._buffers.values()):
                return self._consumer.consume(number, self._until_due())
            first = self._consumer.consume(1, IDLE_SECONDS)
            return first + self._consumer.consume(number, 0) if first else []

    def _until_due(self) -> float:
        now = time.monotonic()
        waits = [
            0.02 if buffer.blocked is not None else buffer.oldest + self._batch.seconds - now
            for buffer in self._buffers.values()
            if buffer.records
        ]
        return min(max(0.0, min(waits)), IDLE_SECONDS)

    def _add(self, message: Message, read: float) -> None:
        error = message.error()
        if error is not None:
            self._judge(error, message.topic() or self._topic)
            return
        self._down = None
        buffer = self._buffers.get((message.topic() or "", message.partition() or 0))
        # A partition may have gone within the very call that returned its records.
        if buffer is not None and not self._draining:
            offset = message.offset() or 0
            if offset <= buffer.last:
                raise Fatal(f"{message.topic()}:{message.partition()} went back from offset {buffer.last} to {offset}")
            buffer.last = offset
            size = len(message.value() or b"") + len(message.key() or b"") + _RECORD_BYTES
            self._mean += (size - self._mean) / 32
            buffer.add(message, size, read)

    def _judge(self, error: KafkaError, topic: str) -> None:
        """Raise what ends the process; log what librdkafka mends itself."""
        ending = client.named(error, topic)
        if ending is not None:
            raise ending
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise Fatal(f"{topic}: {error.str()}; the offset is gone and kafka.options says auto.offset.reset=error")
        if error.code() in {KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT}:
            self.broker_down()
        client.report(error)

    def _ask_broker(self) -> None:
        """librdkafka never says that a broker is back, so it is asked, once a second."""
        now = time.monotonic()
        if self._down is None or now - self._asked < 1.0:
            return
        self._asked = now
        try:
            self._consumer.list_topics(self._topic, 1.0)
        except KafkaException:
            return
        log.info("consume: brokers answer again after %.1fs", now - self._down)
        self._down = None

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        places = _places(partitions)
        self._flights.assign(places)
        for place in places:
            self._buffers[place] = _Buffer(self._flights.epoch(place) or 0)
        self._joined = True
        self._group = self._consumer.consumer_group_metadata()
        self._rebalanced("assigned", places)

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """Still the owner: what is under way may finish, and what is not begins again at the next owner."""
        places = _places(partitions)
        self._forget(places)
        if not self._draining:
            # Half of max.poll.interval.ms at most: beyond it the group would take the partitions for lost.
            seconds = min(self._batch.drain_seconds, self._settings.kafka.poll_seconds / 2)
            self._flights.drain(places, seconds, self.touch)
        self._rebalanced("revoked", places, self._flights.leave(places))

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """Another member may have them already: nothing is committed."""
        places = _places(partitions)
        self._forget(places)
        self._joined = False
        self._rebalanced("lost", places, self._flights.leave(places))

    def _forget(self, places: list[Place]) -> None:
        """Drop what waits to be cut. A pause would outlive the assignment in librdkafka, so it ends here."""
        gone = {place: self._buffers.pop(place) for place in places if place in self._buffers}
        paused = [TopicPartition(*place) for place, buffer in gone.items() if buffer.paused]
        if paused:
            self._consumer.resume(paused)
        self._count_paused()

    def _rebalanced(self, kind: str, places: list[Place], dropped: int = 0) -> None:
        telemetry.REBALANCES.labels(kind=kind).inc()
        names = ",".join(str(partition) for _, partition in sorted(places))
        log.info("rebalance: kind=%s topic=%s partitions=%s dropped_batches=%d", kind, self._topic, names, dropped)

    def _count_paused(self) -> None:
        telemetry.PAUSED.set(sum(buffer.paused for buffer in self._buffers.values()))


def _places(partitions: Iterable[TopicPartition]) -> list[Place]:
    return [(partition.topic, partition.partition) for partition in partitions]


def _source(place: Place, message: Message) -> Source:
    offset = message.offset()
    if offset is None:
        raise Fatal(f"a record of {place[0]}:{place[1]} came without an offset")
    kind, milliseconds = message.timestamp()
    known = None if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds / 1000
    return Source(*place, offset, record_of(message), known)
