"""The poll thread: content in from Kafka, cut into batches, with the consumer always in its group.

A batch is a run of consecutive records of one partition, cut by count, by bytes and by time. While a batch finds no
room the consumer is not asked for more; beyond a while its partition is paused instead, because the group must be
served by polling (max.poll.interval.ms) and pausing costs about a second a cycle.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from tagbus.stream import telemetry
from tagbus.stream.bus.consume import lag
from tagbus.stream.bus.consume.back_pressure import BackPressure
from tagbus.stream.bus.consume.batching import Batcher, PartitionBuffer, RateLimit
from tagbus.stream.bus.consume.crash_loop import CrashLoopGuard
from tagbus.stream.bus.consume.offsets import OffsetResets, RangeBounds, ReadRange
from tagbus.stream.bus.in_flight import InFlight, InFlightBatch, Revoked
from tagbus.stream.bus.processor import Processor
from tagbus.stream.config import Settings
from tagbus.stream.errors import DependencyDown, Poison
from tagbus.stream.kafka.errors import classify, error_of, map_kafka_errors
from tagbus.stream.kafka.logs import report
from tagbus.stream.kafka.message import Partition

log = logging.getLogger(__name__)

T = TypeVar("T")

# How long one call may wait for a record: a stop, and a commit at least once, are seen within it.
IDLE_SECONDS = 0.05
# The same where batches are under way whose commit the publish thread will ask for, at least once.
COMMIT_SECONDS = 0.005
# A poll thread that has not turned for so long was stopped, or its machine was: it knows nothing of the brokers.
STOOD_SECONDS = 5.0
# Between two looks at what need not be known at once: lag, patience, brokers that were away.
LOOK_SECONDS = 1.0


class Poller:
    """The consumer and what it has read. All methods belong to the poll thread; `ready`, `up_since`, `turned`, `quit`,
    `group`, `commit` and `tag_again` to any."""

    def __init__(
        self,
        settings: Settings,
        consumer: Consumer,
        in_flight: InFlight,
        processor: Processor,
        read_range: ReadRange | None,
        start: Callable[[InFlightBatch], None],
    ) -> None:
        """`start` hands a batch to the tagger and returns at once."""
        self._settings = settings
        self._topic = topic = processor.topics.source
        self._consumer = consumer
        self._in_flight = in_flight
        self._processor = processor
        self._start = start
        self._bounds = RangeBounds(settings.kafka, topic, consumer, read_range)
        self._guard = CrashLoopGuard(settings, processor.topics, consumer, self._commit)
        self._resets = OffsetResets(
            settings.kafka, topic, consumer, in_flight, self._bounds, self._commit, self._begin_anew
        )
        rate_limit = RateLimit(read_range.rate if read_range else None)
        self._batcher = Batcher(settings.batch, in_flight, self._guard, processor, rate_limit, start)
        self._back_pressure = BackPressure(settings, consumer, in_flight, self._batcher.limit)
        self._buffers: dict[Partition, PartitionBuffer] = {}
        self._mean = 1024.0
        self._joined = False
        self._draining = False
        self._down: float | None = None
        self._up = time.monotonic()
        self._looked = 0.0
        self._group: object = None
        self._commits_here = settings.kafka.delivery == "at_least_once"
        # What the publish thread asks of this one.
        self._asked: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.turned = time.monotonic()
        # Set from any thread: whatever is waited for is given up.
        self.quit = False

    @property
    def ready(self) -> bool:
        """The group has given this worker its partitions (of many members some may hold none), and brokers answer."""
        return self._joined and self._down is None

    @property
    def up_since(self) -> float | None:
        """Since when brokers answer and this process runs (of time.monotonic()); None while no broker does."""
        return self._up if self._down is None else None

    @property
    def finished(self) -> bool:
        """All that this worker was to read is committed. Never without partitions: some may be on their way."""
        return (
            self._bounds.bounded
            and bool(self._buffers)
            and all(buffer.ended and not buffer.records for buffer in self._buffers.values())
            and not self._in_flight.busy()
        )

    def group(self) -> object:
        """The group's metadata, as it was when the poll thread last looked."""
        return self._group

    def commit(self, offsets: list[TopicPartition], given_up: Callable[[], bool]) -> KafkaError | None:
        """Have the poll thread commit, and wait for it."""
        done = self._ask(lambda: self._commit(offsets), given_up)
        return done.result() if done.done() else KafkaError(KafkaError._TIMED_OUT, "given up", retriable=True)

    def tag_again(self, entry: InFlightBatch, refused: Mapping[int, Poison], given_up: Callable[[], bool]) -> None:
        """Have the poll thread put the partition's batches under way once more, and wait for it."""
        self._ask(lambda: self._start_again(entry, refused), given_up)

    def _ask(self, act: Callable[[], T], given_up: Callable[[], bool]) -> "Future[T]":
        """Have the poll thread do it; it is done, or given up, when this returns."""
        done: Future[T] = Future()
        self._asked.put(lambda: done.set_result(act()))
        self._in_flight.wake()
        while not done.done() and not given_up():
            wait([done], 0.1)
        return done

    def _start_again(self, entry: InFlightBatch, refused: Mapping[int, Poison]) -> None:
        for again in self._in_flight.restart(entry, refused):
            self._start(again)

    def subscribe(self, numbers: Iterable[int]) -> bool:
        """Join the group of a topic with these partitions. False: no broker says where they end now."""
        try:
            self._bounds.fix(numbers)
        except DependencyDown as error:
            log.warning("consume: %s", error)
            return False
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        return True

    def broker_down(self) -> None:
        """librdkafka says that no broker answers."""
        self._down = self._down or time.monotonic()

    def turn(self) -> None:
        """Once round: what may be cut goes to the tagger, and more is read.

        Raises UserError when the topic is gone or may not be read, Fenced or Fatal when the client cannot go on,
        OffsetLost as `kafka.out_of_range` says, DependencyDown when one has been away for retry.deadline_seconds.
        """
        self.touch()
        self._look()
        self._resets.serve(self._buffers)
        self._batcher.cut(self._buffers)
        self._back_pressure.resume(self._buffers)
        if self._back_pressure.hold(self._buffers):
            if self._asked.empty():
                self._in_flight.wait(0.05)
            return
        read = time.monotonic()
        for message in self._consume():
            self._add(message, read)
        if self._bounds.bounded:
            self._back_pressure.pause(
                [partition for partition, buffer in self._buffers.items() if buffer.ended], self._buffers
            )

    def touch(self) -> bool:
        """Show that the poll thread is alive and serve the publish thread; returns whether to go on waiting."""
        now = time.monotonic()
        if now - self.turned > STOOD_SECONDS:
            self._up = now
        self.turned = now
        self._group = self._consumer.consumer_group_metadata()
        while not self._asked.empty():
            self._asked.get()()
        return not self.quit

    def drain(self, seconds: float) -> None:
        """Read no more, wait at most so long for what is under way, drop the rest and hold no partition.

        Raises UserError, Fenced or Fatal when the client cannot go on: what is left is dropped then too.
        """
        self._draining = True
        self._buffers.clear()
        partitions = self._in_flight.partitions()
        self._back_pressure.pause(partitions, self._buffers)
        if not self._in_flight.drain(partitions, seconds, self._serve):
            log.warning("drain: deadline=%.1fs passed, what is left is read again by the next owner", seconds)
        self._give_back(self._in_flight.partitions())

    def _serve(self) -> bool:
        """Serve the group while draining; a record that comes all the same is not ours to commit."""
        with map_kafka_errors(self._settings.kafka, self._topic):
            messages = self._consumer.consume(100, 0.05)
        for message in messages:
            if (error := message.error()) is not None:
                self._classify(error, message)
        return self.touch()

    def _commit(self, offsets: list[TopicPartition]) -> KafkaError | None:
        """With brokers away a commit takes as long as session.timeout.ms to fail, so then it is not begun."""
        if self._down is not None:
            return KafkaError(KafkaError._ALL_BROKERS_DOWN, "no broker answers", retriable=True)
        try:
            with map_kafka_errors(self._settings.kafka, self._topic):
                committed = self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as exception:
            return error_of(exception)
        return next((one.error for one in committed if one.error is not None), None)

    def _consume(self) -> list[Message]:
        """Records and errors; waits for the first where nothing is buffered, else until the next batch is due.

        Whatever is raised here ends the worker: the client throws away the records that it had in hand.
        """
        limit = self._batcher.limit
        number = max(1, min(limit.contents, int(limit.size / self._mean)))
        with map_kafka_errors(self._settings.kafka, self._topic):
            if any(buffer.records for buffer in self._buffers.values()):
                return self._consumer.consume(number, self._until_due())
            first = self._consumer.consume(1, self._idle())
            return first + self._consumer.consume(number, 0) if first else []

    def _until_due(self) -> float:
        now = time.monotonic()
        waits = [
            0.02 if buffer.blocked is not None else buffer.oldest + self._batcher.limit.seconds - now
            for buffer in self._buffers.values()
            if buffer.records
        ]
        return min(max(0.0, min(waits)), self._idle())

    def _idle(self) -> float:
        return COMMIT_SECONDS if self._commits_here and self._in_flight.busy() else IDLE_SECONDS

    def _add(self, message: Message, read: float) -> None:
        error = message.error()
        if error is not None:
            self._classify(error, message)
            return
        if self._down is not None:
            self._back(self._down)
        buffer = self._buffers.get((message.topic() or "", message.partition() or 0))
        # A partition may have gone within the very call that returned its records.
        if buffer is not None and not self._draining and (size := buffer.add(message, read)):
            self._mean += (size - self._mean) / 32

    def _classify(self, error: KafkaError, message: Message) -> None:
        """Raise what ends the process; log what librdkafka mends itself."""
        partition = (message.topic() or self._topic, message.partition() or 0)
        if error.code() == KafkaError._PARTITION_EOF:
            if (buffer := self._buffers.get(partition)) is not None and (message.offset() or 0) >= buffer.end:
                buffer.ended = True
            return
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._resets.add(partition)
            return
        ending = classify(error, self._settings.kafka, partition[0])
        if ending is not None:
            raise ending
        if error.code() in {KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT}:
            self.broker_down()
        report(error)

    def _look(self) -> None:
        """What is looked at once a second."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        lag.report(self._in_flight, self._buffers)
        self._check_patience(now)
        if self._down is not None:
            self._ask_broker(self._down)

    def _check_patience(self, now: float) -> None:
        deadline = self._settings.retry.deadline_seconds
        since = min(filter(None, (self._in_flight.stalled(), self._down)), default=now)
        if deadline is not None and now - since > deadline:
            which = "no broker has" if self._down is not None else "a dependency of the tagger has not"
            raise DependencyDown(
                f"{which} answered for {now - since:.0f} s, longer than retry.deadline_seconds = {deadline:g}"
            )

    def _ask_broker(self, down: float) -> None:
        """librdkafka never says that a broker is back, so it is asked."""
        try:
            self._consumer.list_topics(self._topic, 1.0)
        except KafkaException:
            return
        self._back(down)

    def _back(self, down: float) -> None:
        self._down, self._up = None, time.monotonic()
        log.info("consume: brokers answer again after %.1fs", self._up - down)

    def _on_assign(self, _: Consumer, assigned: list[TopicPartition]) -> None:
        partitions = _keys(assigned)
        self._take(partitions)
        self._joined = True
        self._group = self._consumer.consumer_group_metadata()
        self._rebalanced("assigned", partitions)

    def _take(self, partitions: list[Partition]) -> None:
        """Partitions that begin."""
        self._in_flight.assign(partitions)
        self._guard.assign(partitions)
        self._processor.assign(partitions)
        for partition in partitions:
            self._buffers[partition] = PartitionBuffer(self._bounds.end(partition))

    def _begin_anew(self, partition: Partition) -> None:
        """Its offsets have gone back, so what is known of it is of other records; its published versions still count
        and are read again."""
        self._forget([partition])
        self._leave([partition])
        self._take([partition])

    def _on_revoke(self, _: Consumer, assigned: list[TopicPartition]) -> None:
        """Still the owner: what is under way may finish, and what is not begins again at the next owner."""
        partitions = _keys(assigned)
        self._forget(partitions)
        if not self._draining:
            # Half of max.poll.interval.ms at most: beyond it the group would take the partitions for lost.
            seconds = min(self._settings.batch.drain_seconds, self._settings.kafka.poll_seconds / 2)
            self._in_flight.drain(partitions, seconds, self.touch)
        self._rebalanced("revoked", partitions, self._give_back(partitions).batches)

    def _on_lost(self, _: Consumer, assigned: list[TopicPartition]) -> None:
        """Another member may have them already: nothing is committed."""
        partitions = _keys(assigned)
        self._forget(partitions)
        self._joined = False
        self._rebalanced("lost", partitions, self._leave(partitions).batches)

    def _forget(self, partitions: list[Partition]) -> None:
        """Drop what waits to be cut."""
        gone = {partition: self._buffers.pop(partition) for partition in partitions if partition in self._buffers}
        self._back_pressure.forget(gone, self._buffers)

    def _give_back(self, partitions: list[Partition]) -> Revoked:
        """Partitions that are still ours: whoever has them next knows that this start ended well."""
        left = self._in_flight.revoke(partitions)
        self._guard.revoke(left.untouched)
        self._gone(partitions)
        return left

    def _leave(self, partitions: list[Partition]) -> Revoked:
        left = self._in_flight.revoke(partitions)
        self._gone(partitions)
        return left

    def _gone(self, partitions: list[Partition]) -> None:
        self._guard.forget(partitions)
        self._processor.revoke(partitions)
        lag.forget(partitions)

    def _rebalanced(self, kind: str, partitions: list[Partition], dropped: int = 0) -> None:
        telemetry.REBALANCES.labels(kind=kind).inc()
        names = ",".join(str(number) for _, number in sorted(partitions))
        log.info("rebalance: kind=%s topic=%s partitions=%s dropped_batches=%d", kind, self._topic, names, dropped)


def _keys(assigned: Iterable[TopicPartition]) -> list[Partition]:
    return [(one.topic, one.partition) for one in assigned]
