"""The poll thread: reads records, cuts batches and keeps the consumer in its group.

Each turn starts the due batches and reads more. The other threads ask this one to commit and to process batches again:
the client admits one thread at a time to the consumer and blocks the others, even in a rebalance callback.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from tagbus.stream import telemetry
from tagbus.stream.bus.consume.back_pressure import BackPressure
from tagbus.stream.bus.consume.batching import Batcher, PartitionBuffer, RateLimit, forget_lag, report_lag
from tagbus.stream.bus.consume.bounds import RangeBounds, ReadRange
from tagbus.stream.bus.consume.brokers import STOOD_SECONDS, BrokerHealth
from tagbus.stream.bus.consume.crash_loop import CrashLoopGuard
from tagbus.stream.bus.consume.generation import GroupGeneration
from tagbus.stream.bus.consume.markers import EndMarkers
from tagbus.stream.bus.consume.offsets import OffsetResets
from tagbus.stream.bus.in_flight import InFlight, InFlightBatch, Revoked
from tagbus.stream.bus.processor import Processor
from tagbus.stream.config import Settings
from tagbus.stream.errors import DependencyDown, Poison
from tagbus.stream.kafka.access import inconsistent
from tagbus.stream.kafka.errors import classify, error_of, map_kafka_errors
from tagbus.stream.kafka.logs import report
from tagbus.stream.kafka.message import Partition

log = logging.getLogger(__name__)

T = TypeVar("T")

# How long one call may wait for a record: a stop is noticed within it.
IDLE_SECONDS = 0.05
# The same while records are buffered and batches in flight: buffered records may start when those are done.
BUSY_SECONDS = 0.005
# Between two checks of slow-changing state: lag, deadlines, brokers that were down.
LOOK_SECONDS = 1.0
# The age limit of a transaction's group metadata. Each request waits for a librdkafka thread with the GIL held: a fifth
# of that time if each turn asks. A broker refuses metadata of an older generation.
GROUP_SECONDS = 0.05


class Poller:
    """Owns the consumer and the records it has read. `ready`, `up_since`, `turned`, `quit`, `broker_down`, `group`,
    `commit` and `process_again` may be used from any thread; the rest belongs to the poll thread."""

    def __init__(
        self,
        settings: Settings,
        consumer: Consumer,
        in_flight: InFlight,
        processor: Processor,
        read_range: ReadRange | None,
        start: Callable[[InFlightBatch], None],
    ) -> None:
        """`start` hands a batch to the processor and returns immediately."""
        self._settings = settings
        self._topic = processor.topics.source
        self._consumer = consumer
        self._in_flight = in_flight
        self._processor = processor
        self._start = start
        self._brokers = BrokerHealth(consumer, self._topic, settings.retry.deadline_seconds)
        self._bounds = RangeBounds(settings.kafka, self._topic, consumer, read_range)
        self._guard = CrashLoopGuard(settings, processor.topics, consumer, self._commit)
        self._markers = EndMarkers(settings.kafka, self._topic, consumer, in_flight, self._commit)
        self._resets = OffsetResets(consumer, self._bounds, in_flight, self._commit, self._assign_again)
        rate_limit = RateLimit(read_range.rate if read_range else None)
        self._batcher = Batcher(settings.batch, in_flight, self._guard, processor, rate_limit, start)
        self._back_pressure = BackPressure(settings, consumer, in_flight, self._batcher.limits)
        self._buffers: dict[Partition, PartitionBuffer] = {}
        # The mean size of a record, in bytes.
        self._mean = 1024.0
        # Since when the group has not admitted this worker, of time.monotonic(); None: it has.
        self._waiting: float | None = time.monotonic()
        self._draining = False
        self._looked = 0.0
        self._group = GroupGeneration(consumer, settings.kafka)
        self._asked = 0.0  # when the group metadata was requested, of time.monotonic()
        self._requests: SimpleQueue[Callable[[], None]] = SimpleQueue()  # of the publish thread to this one
        # When the loop turned last, of time.monotonic().
        self.turned = time.monotonic()
        self.quit = False  # set from any thread: give up all waits

    @property
    def ready(self) -> bool:
        """Whether the group has assigned this worker its partitions (a spare member has none), and brokers answer."""
        return self._waiting is None and self._brokers.down_since is None

    @property
    def up_since(self) -> float | None:
        """Since when brokers answer and this process runs, of time.monotonic(); None while no broker answers."""
        return self._brokers.up_since

    @property
    def finished(self) -> bool:
        """Whether the whole read range is committed. False without partitions: some may still be assigned."""
        return (
            self._bounds.bounded
            and bool(self._buffers)
            and all(buffer.ended and not buffer.records for buffer in self._buffers.values())
            and not self._in_flight.busy()
        )

    def broker_down(self) -> None:
        """Record librdkafka's report that no broker answers."""
        self._brokers.down()

    def group(self) -> object:
        """The group metadata, GROUP_SECONDS old at most, or as of the last turn."""
        return self._group.metadata

    def commit(self, offsets: list[TopicPartition]) -> "Future[KafkaError | None]":
        """Have the poll thread commit. The result is None for success; it wakes threads that wait for batches."""
        return self._request(lambda: self._commit(offsets))

    def process_again(self, entry: InFlightBatch, refused: Mapping[int, Poison], given_up: Callable[[], bool]) -> None:
        """Have the poll thread restart all batches of a partition, without results that Kafka refuses, and wait."""
        done = self._request(lambda: self._process_again(entry, refused))
        while not done.done() and not given_up():
            wait([done], 0.1)

    def subscribe(self, numbers: Iterable[int]) -> bool:
        """Join the group, for a topic with these partitions. False: no broker returns their current ends."""
        try:
            self._bounds.look(numbers)
        except DependencyDown as error:
            log.warning("consume: %s", error)
            return False
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        return True

    def recreated(self) -> None:
        """Take note that the source topic was created again."""
        self._resets.recreated(self._buffers)
        self._guard.recreated()

    def turn(self) -> None:
        """Start the due batches, then read more.

        Raises UserError when the topic is deleted or may not be read, OffsetLost as `kafka.out_of_range` says, Fenced,
        Fatal or TopicRecreated when the client cannot continue, DependencyDown after retry.deadline_seconds.
        """
        self.touch()
        self._look()
        self._resets.serve(self._buffers)
        self._batcher.cut(self._buffers)
        self._back_pressure.resume(self._buffers)
        if self._back_pressure.hold(self._buffers):
            if self._requests.empty():
                self._in_flight.wait(0.05)
            return
        read, messages = time.monotonic(), self._consume()
        for message in messages:
            self._add(message, read)
        self._resets.listen(messages, self._buffers, drained=self._batcher.caught_up and self.up_since is not None)
        if self._bounds.bounded:
            self._back_pressure.pause([one for one, buffer in self._buffers.items() if buffer.ended], self._buffers)

    def touch(self) -> bool:
        """Show that the poll thread is alive and serve the publish thread; returns whether to keep waiting."""
        now = time.monotonic()
        if now - self.turned > STOOD_SECONDS:
            self._brokers.resumed(now)
        self.turned = now
        if now - self._asked >= GROUP_SECONDS:
            self._asked = now
            self._group.ask()
        while not self._requests.empty():
            self._requests.get()()
        return not self.quit

    def drain(self, seconds: float) -> None:
        """Stop reading, wait up to `seconds` for batches in flight, drop the rest and give all partitions back.

        Raises UserError, Fenced or Fatal when the client cannot continue.
        """
        self._draining = True
        self._buffers.clear()
        partitions = self._in_flight.partitions()
        self._back_pressure.pause(partitions, self._buffers)
        if not self._in_flight.drain(partitions, seconds, self._serve):
            log.warning("drain: deadline=%.1fs passed, the next owner reads the remaining batches again", seconds)
        self._give_back(self._in_flight.partitions())

    def _request(self, act: Callable[[], T]) -> "Future[T]":
        done: Future[T] = Future()
        done.add_done_callback(lambda _: self._in_flight.wake())
        self._requests.put(lambda: done.set_result(act()))
        self._in_flight.wake()
        return done

    def _process_again(self, entry: InFlightBatch, refused: Mapping[int, Poison]) -> None:
        for again in self._in_flight.restart(entry, refused):
            self._start(again)

    def _commit(self, offsets: list[TopicPartition]) -> KafkaError | None:
        """Commit, unless brokers are down (it takes session.timeout.ms to fail) or it could set another owner back."""
        if self._brokers.down_since is not None:
            return KafkaError(KafkaError._ALL_BROKERS_DOWN, "no broker answers", retriable=True)
        if not self._group.ask():
            return KafkaError(KafkaError.ILLEGAL_GENERATION, "the group has a newer generation", retriable=True)
        try:
            with map_kafka_errors(self._settings.kafka, self._topic):
                committed = self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as exception:
            return error_of(exception)
        return next((one.error for one in committed if one.error is not None), None)

    def _serve(self) -> bool:
        """Serve the group while draining. Records that still arrive are not ours to commit."""
        with map_kafka_errors(self._settings.kafka, self._topic):
            messages = self._consumer.consume(100, 0.05)
        for message in messages:
            if (error := message.error()) is not None:
                self._on_message_error(error, message)
        return self.touch()

    def _consume(self) -> list[Message]:
        """Read records and errors. Waits for the first record if nothing is buffered, else until the next batch is due.
        Any exception here ends the worker: the client drops the records that it was about to return."""
        limits = self._batcher.limits
        number = max(1, min(limits.contents, int(limits.size / self._mean)))
        buffered = any(buffer.records for buffer in self._buffers.values())
        wait = BUSY_SECONDS if buffered and self._in_flight.busy() else IDLE_SECONDS
        with map_kafka_errors(self._settings.kafka, self._topic):
            if buffered:
                messages = self._consumer.consume(number, min(self._batcher.until_due(self._buffers), wait))
            else:
                first = self._consumer.consume(1, wait)
                messages = first + self._consumer.consume(number, 0) if first else []
        self._batcher.caught_up = len(messages) < number
        return messages

    def _add(self, message: Message, read: float) -> None:
        if (error := message.error()) is not None:
            self._on_message_error(error, message)
            return
        self._brokers.answered()
        partition = (message.topic() or "", message.partition() or 0)
        buffer = self._buffers.get(partition)
        # A partition may be revoked within the call that returned its records.
        if buffer is not None and not self._draining and (size := buffer.add(partition, message, read)):
            self._mean += (size - self._mean) / 32

    def _on_message_error(self, error: KafkaError, message: Message) -> None:
        """Raise errors that end the process; log those that librdkafka recovers from."""
        partition = (message.topic() or self._topic, message.partition() or 0)
        if error.code() == KafkaError._PARTITION_EOF:
            if (buffer := self._buffers.get(partition)) is not None:
                buffer.ended = buffer.ended or (message.offset() or 0) >= buffer.end
                # Records beyond the read range are dropped: no commit may pass them.
                self._markers.reached(partition, min(message.offset() or 0, buffer.end))
            return
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._resets.add(partition)
            return
        if error.code() == KafkaError.INCONSISTENT_GROUP_PROTOCOL:
            raise inconsistent(self._settings.kafka)
        if (ending := classify(error, self._settings.kafka, partition[0])) is not None:
            raise ending
        if error.code() in {KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT}:
            self._brokers.down()
        report(error)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        report_lag(self._in_flight, self._buffers, self._consumer)
        self._markers.pass_over(self._buffers)
        self._brokers.report_waiting(self._waiting)
        self._brokers.check_deadline(self._in_flight.stalled())
        self._brokers.ask()

    def _on_assign(self, _: Consumer, assigned: list[TopicPartition]) -> None:
        partitions = _keys(assigned)
        self._assign(partitions)
        self._waiting = None
        self._rebalanced("assigned", partitions)

    def _on_revoke(self, _: Consumer, assigned: list[TopicPartition]) -> None:
        """This worker is still the owner: batches in flight may finish; the next owner reads the rest."""
        partitions = _keys(assigned)
        self._drop_buffers(partitions)
        if not self._draining:
            # At most half of max.poll.interval.ms: beyond that the group considers the partitions lost.
            seconds = min(self._settings.batch.drain_seconds, self._settings.kafka.poll_seconds / 2)
            self._in_flight.drain(partitions, seconds, lambda: self.touch() and self._group.ask())
        self._rebalanced("revoked", partitions, self._give_back(partitions).batches)

    def _on_lost(self, _: Consumer, assigned: list[TopicPartition]) -> None:
        """Another member may own them already: nothing is committed."""
        partitions = _keys(assigned)
        self._drop_buffers(partitions)
        self._waiting = time.monotonic()
        self._rebalanced("lost", partitions, self._revoke(partitions).batches)

    def _assign(self, partitions: list[Partition]) -> None:
        self._in_flight.assign(partitions)
        self._guard.assign(partitions)
        self._processor.assign(partitions)
        for partition in partitions:
            self._buffers[partition] = PartitionBuffer(self._bounds.end(partition))
        self._resets.assigned(partitions)

    def _assign_again(self, partition: Partition) -> None:
        """Reassign a partition whose offsets have gone back: known offsets belong to other records. Its published
        versions still count and are read again."""
        self._drop_buffers([partition])
        self._revoke([partition])
        self._assign([partition])

    def _drop_buffers(self, partitions: list[Partition]) -> None:
        gone = {partition: self._buffers.pop(partition) for partition in partitions if partition in self._buffers}
        self._back_pressure.forget(gone, self._buffers)

    def _give_back(self, partitions: list[Partition]) -> Revoked:
        """Revoke partitions that are still ours, and record for the next owner that this start ended cleanly."""
        revoked = self._in_flight.revoke(partitions)
        self._guard.revoke(revoked.untouched)
        self._revoke(partitions)
        return revoked

    def _revoke(self, partitions: list[Partition]) -> Revoked:
        revoked = self._in_flight.revoke(partitions)
        self._guard.forget(partitions)
        self._markers.forget(partitions)
        self._processor.revoke(partitions)
        forget_lag(partitions)
        return revoked

    def _rebalanced(self, kind: str, partitions: list[Partition], dropped: int = 0) -> None:
        (self._group.lost if kind == "lost" else self._group.settle)()
        telemetry.REBALANCES.labels(kind=kind).inc()
        names = ",".join(str(number) for _, number in sorted(partitions))
        log.info("rebalance: kind=%s topic=%s partitions=%s dropped_batches=%d", kind, self._topic, names, dropped)


def _keys(assigned: Iterable[TopicPartition]) -> list[Partition]:
    return [(one.topic, one.partition) for one in assigned]
