"""The publish thread: sends finished batches to Kafka, in order within each partition.

All batches that are finished at the same time share one transaction: it takes 7 ms at the median, whatever its size.
"""

import logging
import threading
import time
from collections.abc import Callable

from confluent_kafka import Producer

from tagbus.stream import telemetry
from tagbus.stream.bus.in_flight import InFlight, InFlightBatch
from tagbus.stream.bus.publish import transaction
from tagbus.stream.bus.publish.record_producer import Abandoned, RecordProducer, RecordRefused, RetryTransaction
from tagbus.stream.bus.publish.transaction import AtLeastOnce, Delivery, ExactlyOnce, GroupMember
from tagbus.stream.config import Settings
from tagbus.stream.errors import DependencyDown
from tagbus.stream.kafka.errors import map_kafka_errors
from tagbus.stream.retry import backoff

log = logging.getLogger(__name__)

# How long to wait for a finished batch; callbacks, a due commit and a stop are noticed within it.
IDLE_SECONDS = 0.1
# Between two looks at a commit that must be done first.
WAIT_SECONDS = 0.01
# A step of a transaction hangs if it takes this many times its timeout.
HANGS = 1.5


class Publisher:
    """The publish thread. Reports an error that ends the worker to `fail`."""

    def __init__(
        self,
        settings: Settings,
        source: str,
        producer: Producer,
        member: GroupMember,
        in_flight: InFlight,
        published: Callable[[InFlightBatch], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        """`source`: the topic whose offsets are committed. `published` is called with each batch after its commit,
        `fail` with an error that ends the worker."""
        self._settings = settings
        self._source = source
        self._producer = producer
        self._member = member
        self._in_flight = in_flight
        self._published = published
        self._fail = fail
        self._stop = threading.Event()
        self._struggling = False
        self._records = RecordProducer(settings, producer, in_flight, self._stop.is_set)
        self._delivery: Delivery = (
            ExactlyOnce(self._records, producer, member, settings, source)
            if settings.kafka.delivery == "exactly_once"
            else AtLeastOnce(self._records, member, in_flight, settings, source)
        )
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publish", daemon=True)

    @property
    def ready(self) -> bool:
        """Whether Kafka accepts results."""
        return self._opened.is_set() and not self._struggling

    @property
    def problem(self) -> str:
        """Which of its topics were deleted; empty if all exist."""
        names = " and ".join(self._records.absent)
        return f"results wait for topic {names}, which does not exist: `tagbus topics create` creates it" * bool(names)

    @property
    def opened(self) -> bool:
        """Whether earlier processes with this transactional.id are fenced, so that records may be fetched."""
        return self._opened.is_set()

    def check(self, up_since: float | None) -> None:
        """Raise DependencyDown if a step of a transaction hangs although brokers answer, for so long that the broker
        has aborted the transaction: only another process can publish the batches in flight. `up_since` is the
        poller's."""
        asked = self._delivery.asked
        if asked is None or up_since is None:
            return
        waited = time.monotonic() - max(asked, up_since)
        if waited > max(self._settings.kafka.transaction_seconds, HANGS * transaction.STEP_SECONDS):
            raise DependencyDown(
                f"a step of a transaction has hung for {waited:.0f} s although brokers answer (librdkafka waits for a "
                "coordinator that it has lost): start again, nothing is lost"
            )

    def recreated(self, topic: str) -> None:
        """Take note that a topic was created again: the worker ends with TopicRecreated if it cannot be written to."""
        self._records.recreated |= {topic}

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Give up unfinished work, and wait up to `seconds` for the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(seconds)
        if self._thread.is_alive():
            log.warning("publish: the thread did not end within %.1fs", seconds)

    def _run(self) -> None:
        try:
            self._delivery.open()
            self._opened.set()
            while not self._stop.is_set():
                self._publish(self._in_flight.finished(IDLE_SECONDS, self._delivery.answered))
                self._settle()
                with map_kafka_errors(self._settings.kafka):
                    self._producer.poll(0)
        except Abandoned:
            log.warning("publish: stopped before all batches were published; the next owner reads them again")
        except BaseException as error:
            if not self._stop.is_set():
                self._fail(error)
            else:
                log.warning("publish: stopped with error=%s", type(error).__name__)

    def _publish(self, entries: list[InFlightBatch]) -> None:
        """Retry until the batches are published or their partitions are revoked."""
        delays = backoff(self._settings.retry)
        start = time.monotonic()
        while entries:
            try:
                self._delivery.send(entries)
                break
            except RetryTransaction as error:
                if isinstance(error, RecordRefused):
                    self._commit_sent()
                    self._member.process_again(error.entry, {error.index: error.poison}, self._stop.is_set)
                entries = [entry for entry in entries if self._in_flight.owns(entry)]
                self._struggling = bool(entries)
                self._settle()
                if entries:
                    log.warning("publish: publishing batches=%d again: %s", len(entries), error)
                    self._stop.wait(next(delays))
                    entries = self._once_topics_exist(entries)
        self._struggling = False
        self._records.absent = ()
        if entries:
            telemetry.BATCH_SECONDS.labels(step="publish").observe(time.monotonic() - start)

    def _commit_sent(self) -> None:
        """Wait until the offsets of all sent results are committed: what is processed again forgets what it learnt of
        the batches in flight. Raises Abandoned."""
        while self._delivery.uncommitted():
            self._settle()
            self._records.check_patience()
            self._stop.wait(WAIT_SECONDS)

    def _settle(self) -> None:
        """Take batches that are committed out of flight."""
        for entry in self._delivery.committed():
            self._in_flight.done(entry)
            self._published(entry)

    def _once_topics_exist(self, entries: list[InFlightBatch]) -> list[InFlightBatch]:
        """Wait until all topics of the batches exist: any attempt before that fails, and at least once publishes their
        other results again. Returns the batches that are still owned; raises Abandoned."""
        delays = backoff(self._settings.retry)
        self._records.look_for_topics(entries, self._source)
        if self._records.absent:
            log.warning("publish: %s", self.problem)
        while entries and self._records.absent:
            self._settle()
            self._stop.wait(next(delays))
            self._records.check_patience()
            entries = [entry for entry in entries if self._in_flight.owns(entry)]
            self._records.look_for_topics(entries, self._source)
        return entries
