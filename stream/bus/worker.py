"""The worker: content in, tags out, until it is stopped. It wires poll, loop and publish threads together."""

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial

from confluent_kafka import KafkaError

from tagbus.stream import telemetry
from tagbus.stream.bus.consume import lag
from tagbus.stream.bus.consume.offsets import ReadRange
from tagbus.stream.bus.consume.poller import Poller
from tagbus.stream.bus.in_flight import InFlight, InFlightBatch
from tagbus.stream.bus.process.isolation import BatchTagger
from tagbus.stream.bus.process.processor import TagProcessor
from tagbus.stream.bus.process.version_topic import VersionTopic
from tagbus.stream.bus.publish.publisher import Publisher
from tagbus.stream.config import Settings
from tagbus.stream.contract.registry import Schemas
from tagbus.stream.errors import DependencyDown, Fatal, TagbusError, UserError
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.access import missing_rights
from tagbus.stream.kafka.errors import RAISED, classify, error_of
from tagbus.stream.kafka.logs import report
from tagbus.stream.kafka.metadata import list_partitions
from tagbus.stream.kafka.rights import Operation

log = logging.getLogger(__name__)

Gate = Callable[[], Awaitable[None]]

# How long to wait for threads to end when everything else is done.
JOIN_SECONDS = 5.0
# Between two looks at what is waited for before content is fetched; a stop is seen within it.
WAIT_SECONDS = 0.05
# How long one question for the partitions of a topic may take: a stop is seen within it.
LIST_SECONDS = 2.0


async def open_gate() -> None:
    """The gate of a worker that has nothing to wait for."""


class Worker:
    """One member of the group. `run` blocks; the other methods may be called from any thread and signal handler."""

    def __init__(
        self, settings: Settings, tagger: BatchTagger, gate: Gate = open_gate, read_range: ReadRange | None = None
    ) -> None:
        """`gate` runs on the worker's own loop, the one that the tagger runs on, and returns when content may be
        fetched. Tasks that it leaves behind (a memory that follows its topics) are cancelled at the end. `read_range`
        bounds
        what is read, of a backfill.

        Raises UserError for Kafka settings that librdkafka does not take.
        """
        self._settings = settings
        self._versions = VersionTopic(settings)
        self._schemas = Schemas(settings.registry, settings.topics)
        self._processor = TagProcessor(settings, tagger, self._versions, self._schemas)
        self._gate = gate
        self._in_flight = InFlight(settings.batch.in_flight, settings.batch.in_flight_bytes)
        # Transaction markers count in the end of a partition and are never delivered: only the client knows it.
        ends: clients.Properties = {"enable.partition.eof": read_range is not None and read_range.until is not None}
        self._consumer = clients.group_member(settings, self._on_error, ends)
        self._producer = clients.result_producer(settings, self._on_error)
        self._poller = Poller(settings, self._consumer, self._in_flight, self._versions, read_range, self._begin)
        self._partitions: tuple[int, ...] = ()
        self._publisher = Publisher(settings, self._producer, self._poller, self._in_flight, self._published, self.fail)
        self._loop = asyncio.new_event_loop()
        self._looping = threading.Thread(target=self._run_loop, name="loop", daemon=True)
        # A flag: `stop` runs in signal handlers, where a lock may be one that the interrupted thread holds.
        self._stopping = False
        self._failure: BaseException | None = None
        self._gate_open = False

    def run(self) -> None:
        """Work until `stop`, or until the span is done. Raises what ended it otherwise: an error of the tree with its
        exit code, or a bug."""
        self._looping.start()
        try:
            if self._prepare():
                log.info("worker: group=%s instance=%s", self._settings.kafka.group, self._settings.kafka.instance)
                while not self._stopping and not self._poller.finished:
                    self._poller.turn()
                    self._publisher.check(self._poller.up_since)
        except TagbusError as error:
            self.fail(error)
        except RAISED as raised:
            self.fail(self._named(raised))
        finally:
            self._close()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Stop reading, finish what is under way within batch.drain_seconds, leave the group. Called a second time:
        drop it at once; the next owner reads it again."""
        if self._stopping:
            self._poller.quit = True
        self._stopping = True

    def fail(self, error: BaseException) -> None:
        """End the worker with this error: `run` raises the first that came."""
        self._failure = self._failure or error
        self._poller.quit = True
        self._stopping = True

    def alive(self) -> bool:
        """The poll loop turned within health.stall_seconds, whatever the dependencies do."""
        return time.monotonic() - self._poller.turned < self._settings.health.stall_seconds

    def ready(self) -> bool:
        """The gate is open, partitions are assigned, brokers answer, and no batch waits for a dependency."""
        return (
            self._gate_open
            and not self._stopping
            and self._poller.ready
            and self._publisher.ready
            and not self._in_flight.stalled()
        )

    def _prepare(self) -> bool:
        """Open the gate, then fence earlier processes, then see that the topics are there: the order in which a
        worker that is not ready takes nothing from the others. False when it was stopped meanwhile."""
        self._schemas.register()
        gate = asyncio.run_coroutine_threadsafe(self._await_gate(), self._loop)
        if not self._wait(gate.done):
            gate.cancel()
            return False
        gate.result()
        self._gate_open = True
        self._publisher.start()
        return (
            self._wait(lambda: self._publisher.opened)
            and self._wait(self._topics_there)
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

    def _topics_there(self) -> bool:
        """A missing topic is named at the start, not when its first record is due. False: no broker answers now."""
        topics = self._settings.topics
        counts: dict[str, int] = {}
        versions = (topics.versions,) if self._settings.triage.versions else ()
        if refused := missing_rights(self._settings.kafka, self._needs()):
            raise refused
        for topic in (topics.content, topics.tagged, topics.dead_letters, topics.exemplars, *versions):
            try:
                found = list_partitions(self._consumer, self._settings.kafka, topic, seconds=LIST_SECONDS)
            except DependencyDown as error:
                report(error)
                return False
            counts[topic] = len(found)
        if versions:
            self._check_versions(counts[topics.content], counts[topics.versions])
        self._partitions = tuple(range(counts[topics.content]))
        return True

    def _needs(self) -> list[tuple[Operation, str]]:
        """What it does with topics, besides reading the memory's."""
        topics = self._settings.topics
        needs: list[tuple[Operation, str]] = [("Read", topics.content)]
        needs += [("Write", topic) for topic in (topics.tagged, topics.dead_letters, topics.exemplars)]
        if self._settings.triage.versions:
            needs += [("Read", topics.versions), ("Write", topics.versions)]
        return needs

    def _check_versions(self, contents: int, versions: int) -> None:
        """The version of a content stands in the partition of the same number as the content."""
        if versions < contents:
            topics = self._settings.topics
            raise UserError(
                f"topic {topics.versions} has {versions} partitions, expected at least the {contents} of "
                f"{topics.content}; add the missing ones"
            )

    def _begin(self, entry: InFlightBatch) -> None:
        """Hand a batch to the loop."""
        entry.work = asyncio.run_coroutine_threadsafe(self._process(entry), self._loop)
        entry.work.add_done_callback(self._on_processed)

    async def _process(self, entry: InFlightBatch) -> None:
        stall = partial(self._stall, entry)
        self._in_flight.complete(entry, await self._processor.process(entry.batch, stall))

    def _published(self, entry: InFlightBatch) -> None:
        """A batch is committed: count it, and let the triage learn from it."""
        telemetry.BATCHES.labels(outcome="published").inc()
        outcomes = entry.outcomes or ()
        for outcome, count in Counter(outcome.kind for outcome in outcomes).items():
            telemetry.CONTENTS.labels(outcome=outcome).inc(count)
        for stage, count in Counter(outcome.stage for outcome in outcomes if outcome.stage).items():
            telemetry.DEAD_LETTERS.labels(stage=stage).inc(count)
        lag.observe(entry)
        self._processor.published(entry)

    def _stall(self, entry: InFlightBatch, stalled: bool) -> None:  # noqa: FBT001 - says which of two states it is in
        self._in_flight.stall(entry, stalled=stalled)

    def _on_processed(self, work: Future[None]) -> None:
        """What the triage does not sort ends the worker: going on would leave the partition stuck."""
        if not work.cancelled() and (error := work.exception()) is not None:
            self.fail(error)

    def _on_error(self, error: KafkaError) -> None:
        """librdkafka's own errors, from the poll or the publish thread."""
        ending = classify(error, self._settings.kafka, self._settings.topics.content)
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
        self._versions.close()
        try:
            self._consumer.close()
        except RAISED as raised:
            self._failed_late("close", self._named(raised))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._looping.join(JOIN_SECONDS)
        log.info("worker: stopped")

    def _failed_late(self, step: str, error: TagbusError) -> None:
        """What is left is read again by the next owner, so a first error says more than this one."""
        log.warning("worker: %s failed: %s", step, error)
        self.fail(error)

    def _named(self, raised: object) -> TagbusError:
        """What a call of the client raised, as an error that has an exit code."""
        error = error_of(raised)
        ending = classify(error, self._settings.kafka, self._settings.topics.content)
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
