"""The worker: a member of a consumer group that runs a processor until it is stopped.

It uses four threads: the caller's, which polls Kafka (consume/); `loop`, which runs the processor (process/); `publish`
(publish/); and, while partitions are assigned, the readers of their published versions.
"""

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from functools import partial

from confluent_kafka import KafkaError

from tagbus.stream import telemetry
from tagbus.stream.bus.consume.bounds import ReadRange
from tagbus.stream.bus.consume.poller import Poller
from tagbus.stream.bus.in_flight import InFlight, InFlightBatch
from tagbus.stream.bus.processor import Batch, Processor, RecordOutcome
from tagbus.stream.bus.publish.publisher import Publisher
from tagbus.stream.config import Settings
from tagbus.stream.errors import DependencyDown, Fatal, TagbusError, UserError
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.access import missing_rights
from tagbus.stream.kafka.errors import RAISED, classify, error_of
from tagbus.stream.kafka.identity import TopicIds
from tagbus.stream.kafka.logs import report
from tagbus.stream.kafka.metadata import list_partitions
from tagbus.stream.telemetry import traces
from tagbus.stream.telemetry.logs import BatchPosition, at

log = logging.getLogger(__name__)

Gate = Callable[[], Awaitable[None]]

# How long to wait for threads to end when everything else is done.
JOIN_SECONDS = 5.0
# Between two checks of the preconditions of the first fetch; a stop is noticed within it.
WAIT_SECONDS = 0.05
# The timeout of one request for a topic's partitions; a stop is noticed within it.
LIST_SECONDS = 2.0


def observe_lag(batch: Batch, outcomes: Sequence[RecordOutcome]) -> None:
    """Observe the seconds from events and from their records to their commit, which is now. An event without a time of
    its own has its record's."""
    now = time.time()
    lags: list[float] = []
    ages: dict[str, list[float]] = {}
    for source, outcome in zip(batch.sources, outcomes, strict=True):
        recorded, made = source.timestamp, outcome.event_time
        # The producer's clock may be ahead of this one.
        if recorded is not None:
            age = now - recorded if recorded < now else 0.0
            ages.setdefault(outcome.path, []).append(age)
            if made is None:
                lags.append(age)
        if made is not None:
            lags.append(now - made if made < now else 0.0)
    telemetry.EVENT_TO_COMMIT.observe(lags)
    for path, seconds in ages.items():
        telemetry.END_TO_END.observe(seconds, path)


async def open_gate() -> None:
    """The gate of a worker with nothing to wait for."""


class Worker:
    """One member of the group. `run` blocks; the other methods may be called from any thread or signal handler."""

    def __init__(
        self, settings: Settings, processor: Processor, gate: Gate = open_gate, read_range: ReadRange | None = None
    ) -> None:
        """`gate` runs on the processor's event loop and returns when records may be fetched. Tasks that it leaves
        running (a memory that follows its topics) are cancelled at the end. `read_range` limits what is read, for a
        backfill.

        Raises UserError for Kafka settings that librdkafka rejects.
        """
        self._settings = settings
        self._processor = processor
        self._topics = processor.topics
        self._gate = gate
        self._in_flight = InFlight(settings.batch.in_flight, settings.batch.in_flight_bytes)
        self._consumer = clients.group_member(settings, self._on_error)
        self._producer = clients.result_producer(settings, self._on_error)
        self._poller = Poller(settings, self._consumer, self._in_flight, processor, read_range, self._start)
        topics = self._topics
        self._ids = TopicIds(settings.kafka, (topics.source, *topics.results, topics.dead_letters, *topics.state))
        self._partitions: tuple[int, ...] = ()
        self._publisher = Publisher(
            settings, self._topics.source, self._producer, self._poller, self._in_flight, self._published, self.fail
        )
        # Created by `run`: an unclosed loop warns at the end of a process that failed earlier.
        self._loop: asyncio.AbstractEventLoop
        self._loop_thread = threading.Thread(target=self._run_loop, name="loop", daemon=True)
        # A flag: `stop` runs in signal handlers, which may interrupt a thread that holds a lock.
        self._stopping = False
        self._failure: BaseException | None = None
        self._gate_open = False

    def run(self) -> None:
        """Work until `stop`, or until the read range is done. Else raises the error that ended the worker: one of the
        tree, with its exit code, or a bug."""
        self._loop = asyncio.new_event_loop()
        self._loop_thread.start()
        try:
            if self._prepare():
                log.info("worker: group=%s instance=%s", self._settings.kafka.group, self._settings.kafka.instance)
                while not self._stopping and not self._poller.finished:
                    self._poller.turn()
                    self._publisher.check(self._poller.up_since)
                    self._look_for_new_topics()
        except TagbusError as error:
            self.fail(error)
        except RAISED as raised:
            self.fail(self._named(raised))
        finally:
            self._close()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Stop reading, finish the batches in flight within batch.drain_seconds, leave the group. A second call drops
        the batches in flight; the next owner reads them again."""
        if self._stopping:
            self._poller.quit = True
        self._stopping = True

    def fail(self, error: BaseException) -> None:
        """End the worker with this error. `run` raises the first one."""
        self._failure = self._failure or error
        self._poller.quit = True
        self._stopping = True

    def alive(self) -> bool:
        """Whether the poll loop turned within health.stall_seconds, regardless of dependencies."""
        return time.monotonic() - self._poller.turned < self._settings.health.stall_seconds

    def ready(self) -> bool:
        """Whether the gate is open, partitions are assigned, brokers answer, and no batch waits for a dependency."""
        return (
            self._gate_open
            and not self._stopping
            and self._poller.ready
            and self._publisher.ready
            and not self._in_flight.stalled()
            and not self.problems()
        )

    def share(self) -> float:
        """The share of all partitions assigned to this worker, 0 to 1."""
        return len(self._in_flight.partitions()) / len(self._partitions) if self._partitions else 0.0

    def problems(self) -> list[str]:
        """What this worker waits for that needs an operator's action: topics that are deleted or have too few
        partitions."""
        return [words for words in (self._publisher.problem, self._processor.problem()) if words]

    def _prepare(self) -> bool:
        """Open the gate, fence earlier processes, check the topics, join the group: in this order a worker that is not
        ready takes no partition from the others. False if it was stopped meanwhile."""
        self._processor.prepare()
        gate = asyncio.run_coroutine_threadsafe(self._await_gate(), self._loop)
        if not self._wait(gate.done):
            gate.cancel()
            return False
        gate.result()
        self._gate_open = True
        self._publisher.start()
        return (
            self._wait(lambda: self._publisher.opened)
            and self._wait(self._topics_exist)
            and self._wait(lambda: self._poller.subscribe(self._partitions))
        )

    async def _await_gate(self) -> None:
        await self._gate()

    def _wait(self, condition: Callable[[], bool]) -> bool:
        while not self._stopping:
            self._poller.touch()
            if condition():
                return True
            time.sleep(WAIT_SECONDS)
        return False

    def _topics_exist(self) -> bool:
        """Report a missing topic or right at the start, not at the first record. False: no broker answers."""
        topics = self._topics
        # The gate may need other rights.
        if refused := missing_rights(self._settings.kafka, topics.operations):
            raise refused
        counts: dict[str, int] = {}
        for topic in (topics.source, *topics.results, topics.dead_letters, *topics.state):
            try:
                found = list_partitions(self._consumer, self._settings.kafka, topic, seconds=LIST_SECONDS)
            except DependencyDown as error:
                report(error)
                return False
            counts[topic] = len(found)
        for topic in topics.state:
            if counts[topic] < counts[topics.source]:
                raise UserError(
                    f"topic {topic} has {counts[topic]} partitions, expected at least the {counts[topics.source]} of "
                    f"{topics.source}; `tagbus topics create --mend` adds them"
                )
        self._partitions = tuple(range(counts[topics.source]))
        return True

    def _look_for_new_topics(self) -> None:
        for topic in self._ids.recreated():
            log.warning("worker: topic=%s was deleted and created again", topic)
            if topic == self._topics.source:
                self._poller.recreated()
            else:
                self._publisher.recreated(topic)

    def _start(self, entry: InFlightBatch) -> None:
        """Hand a batch to the processor."""
        entry.work = asyncio.run_coroutine_threadsafe(self._process(entry), self._loop)
        entry.work.add_done_callback(self._on_processed)

    async def _process(self, entry: InFlightBatch) -> None:
        stall = partial(self._stall, entry)
        batch, trace = entry.batch, entry.batch.trace
        place = BatchPosition(*batch.partition, batch.sources[0].offset, "" if trace is None else trace.trace)
        with at(place), traces.within(trace):
            outcomes = await self._processor.process(batch, stall)
        self._in_flight.complete(entry, outcomes)

    def _stall(self, entry: InFlightBatch, stalled: bool) -> None:  # noqa: FBT001 - says which of two states it is in
        self._in_flight.stall(entry, stalled=stalled)

    def _on_processed(self, work: Future[None]) -> None:
        """An error of the processor ends the worker: continuing would leave the partition stuck."""
        if not work.cancelled() and (error := work.exception()) is not None:
            self.fail(error)

    def _published(self, entry: InFlightBatch) -> None:
        """Count a committed batch, and notify the processor."""
        telemetry.BATCHES.labels(outcome="published").inc()
        outcomes = entry.outcomes or ()
        for kind, count in Counter([outcome.kind for outcome in outcomes]).items():
            telemetry.CONTENTS.labels(outcome=kind).inc(count)
        refused = Counter([(outcome.stage, outcome.reason) for outcome in outcomes if outcome.stage])
        for (stage, reason), count in refused.items():
            telemetry.DEAD_LETTERS.labels(stage=stage, reason=reason).inc(count)
        observe_lag(entry.batch, outcomes)
        if entry.batch.trace is not None:
            entry.batch.trace.published()
        self._processor.published(entry.batch, outcomes)

    def _on_error(self, error: KafkaError) -> None:
        """Handle librdkafka's own errors, from the poll or the publish thread."""
        ending = classify(error, self._settings.kafka, self._topics.source)
        if ending is not None:
            self.fail(ending)
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._poller.broker_down()
        report(error)

    def _close(self) -> None:
        """Drain, end the threads, leave the group. The publisher ends before the consumer that it commits through."""
        self._stopping = True
        drain = 0.0 if self._poller.quit else self._settings.batch.drain_seconds
        try:
            self._poller.drain(drain)
        except TagbusError as error:
            self._failed_late("drain", error)
        except RAISED as raised:
            self._failed_late("drain", self._named(raised))
        self._publisher.stop(1.0 if self._poller.quit else JOIN_SECONDS)
        self._processor.close()
        try:
            self._consumer.close()
        except RAISED as raised:
            self._failed_late("close", self._named(raised))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._loop_thread.join(JOIN_SECONDS)
        log.info("worker: stopped")

    def _failed_late(self, step: str, error: TagbusError) -> None:
        """The next owner reads the remaining records, so an earlier error matters more than this one."""
        log.warning("worker: %s failed: %s", step, error)
        self.fail(error)

    def _named(self, raised: object) -> TagbusError:
        """An exception of a client call as an error with an exit code."""
        error = error_of(raised)
        ending = classify(error, self._settings.kafka, self._topics.source)
        return ending or Fatal(f"Kafka client failed: {error.str()}")

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=JOIN_SECONDS))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
