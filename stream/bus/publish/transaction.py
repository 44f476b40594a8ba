"""The transaction: how results, dead letters and offsets reach Kafka, exactly once or at least once.

Exactly once they are one Kafka transaction (KIP-98, KIP-447). It starts only when the results are ready, because an
open transaction holds up every read_committed reader and times out. At least once, the offsets are committed after the
results.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from enum import Enum
from typing import Protocol

from confluent_kafka import KafkaError, Producer, TopicPartition

from tagbus.stream import telemetry
from tagbus.stream.bus.in_flight import InFlight, InFlightBatch
from tagbus.stream.bus.publish.record_producer import RecordProducer, RetryTransaction
from tagbus.stream.config import Settings
from tagbus.stream.errors import Fatal, Poison, TagbusError
from tagbus.stream.kafka.errors import FENCED, NO_COORDINATOR, NO_TOPIC, RAISED, classify, error_of
from tagbus.stream.kafka.rights import REFUSED
from tagbus.stream.retry import backoff

log = logging.getLogger(__name__)

# The timeout of one call of a transaction's step. A step that timed out is called again: its outcome is unknown.
# librdkafka honours the timeout for all steps but the offsets, which may wait for the group's coordinator forever
# (librdkafka 5456), even for one that is back, if the client dropped its broker meanwhile (librdkafka 5511). Then the
# publish thread hangs and the poll thread ends the worker (Publisher.check).
STEP_SECONDS = 10.0
# Between two commits, at least once. The poll thread cannot read during a commit: one for each batch doubled the median
# latency at 100 contents a second, to 13 ms. A crash duplicates the results since the last commit.
COMMIT_SECONDS = 0.1
# The timeout of an abort when the worker ends; after that the broker aborts by transaction.timeout.ms.
LAST_SECONDS = 1.0
# Errors of a commit by a member whose partitions were revoked meanwhile.
_STALE = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError.REBALANCE_IN_PROGRESS,
    }
)

_WAITED_OUT = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._WAIT_COORD,
        KafkaError.REQUEST_TIMED_OUT,
        *NO_COORDINATOR,
    }
)


class ErrorAction(Enum):
    """What to do about the error of a transaction's step."""

    CALL_AGAIN = "call the same step again"
    """The error is retriable. So is a commit that timed out: its outcome is unknown until the same call answers, so
    nothing is rewound and nothing is sent again."""
    ABORT = "abort, then publish the same results again"
    """The whole transaction is void. A stale member gets this error too: if its partitions are still assigned (a
    KIP-848 member epoch moves with every rebalance), the results are sent again with fresh group metadata. A deleted
    topic also causes it: the publisher waits until the topic exists again."""
    END = "end the process"
    """Fenced, fatal, a missing right, or an error that librdkafka does not say how to handle."""


def action_for(error: KafkaError) -> ErrorAction:
    """What to do about an error. Source: librdkafka's INTRODUCTION.md, "Transactional producer API", error handling."""
    if error.fatal() or error.code() in FENCED | REFUSED:
        return ErrorAction.END
    if error.txn_requires_abort():
        return ErrorAction.ABORT
    return ErrorAction.CALL_AGAIN if error.retriable() and error.code() not in NO_TOPIC else ErrorAction.END


class GroupMember(Protocol):
    """This worker as a member of its group. The client admits one thread at a time to the consumer and blocks all
    others, even in a rebalance callback, so the poll thread acts for the publish thread."""

    def group(self) -> object:
        """The group metadata as of the poll thread's last turn."""
        ...

    def commit(self, offsets: list[TopicPartition]) -> "Future[KafkaError | None]":
        """Commit offsets. The answer is None when it is done."""
        ...

    def process_again(self, entry: InFlightBatch, refused: Mapping[int, Poison], given_up: Callable[[], bool]) -> None:
        """Have all batches of a partition processed again without the results that Kafka refuses. When this returns,
        the original batches are no longer owned."""
        ...


class Delivery(Protocol):
    """Sends the results and offsets of batches to Kafka.

    `asked`: since when a client call has been pending, on time.monotonic(); None if none is.
    """

    asked: float | None

    def open(self) -> None:
        """Get ready to send; waits for brokers. Raises Abandoned, Fenced, Fatal, UserError."""
        ...

    def send(self, entries: Sequence[InFlightBatch]) -> None:
        """Send results; offsets are committed with them or later. Raises RetryTransaction, Abandoned, Fenced, Fatal,
        UserError."""
        ...

    def answered(self) -> bool:
        """Whether `committed` would return batches or raise."""
        ...

    def committed(self) -> list[InFlightBatch]:
        """The batches whose offsets were committed since the last call. Raises Fatal, UserError."""
        ...

    def uncommitted(self) -> bool:
        """Whether results are sent whose offsets are not committed yet."""
        ...


class ExactlyOnce:
    """Results, dead letters and offsets in one transaction (KIP-98, KIP-447)."""

    def __init__(
        self, records: RecordProducer, producer: Producer, member: GroupMember, settings: Settings, source: str
    ) -> None:
        """`source`: the topic whose offsets are committed."""
        self._records = records
        self._producer = producer
        self._member = member
        self._settings = settings
        self._source = source
        self._committed: list[InFlightBatch] = []
        self.asked: float | None = None

    def open(self) -> None:
        """Fence earlier processes of this transactional.id and end their open transactions."""
        self._step("init", lambda: self._producer.init_transactions(STEP_SECONDS))

    def send(self, entries: Sequence[InFlightBatch]) -> None:
        """Send batches in one transaction."""
        # Read before ownership is checked: if a partition is revoked after the check, this generation is stale by the
        # time another member may own it, and the broker refuses it.
        group = self._member.group()
        if not self._records.still_ours(entries):
            raise RetryTransaction("a partition was revoked")
        self._step("begin", self._producer.begin_transaction)
        try:
            self._records.produce(entries)
            # Sent before brokers have confirmed the records: it costs no time then, and it registers the transaction
            # with its coordinator. Aborting an unregistered one gives INVALID_TXN_STATE, which is fatal (librdkafka
            # 4849): seen when a broker was lost with the first record's registration.
            offsets = _offsets(entries)
            self._step("offsets", lambda: self._producer.send_offsets_to_transaction(offsets, group, STEP_SECONDS))
            self._confirm()
            self._step("commit", lambda: self._producer.commit_transaction(STEP_SECONDS))
        except RetryTransaction:
            self._step("abort", lambda: self._producer.abort_transaction(STEP_SECONDS))
            telemetry.TRANSACTIONS.labels(outcome="aborted").inc()
            self._records.sort_failures()
            raise
        except BaseException:
            # Left open, it would hold up read_committed readers until it times out.
            with suppress(*RAISED):
                self._producer.abort_transaction(LAST_SECONDS)
            raise
        telemetry.TRANSACTIONS.labels(outcome="committed").inc()
        self._committed += entries

    def answered(self) -> bool:
        """False: `send` returns when offsets are committed."""
        return False

    def committed(self) -> list[InFlightBatch]:
        """What was sent since the last call."""
        done, self._committed = self._committed, []
        return done

    def uncommitted(self) -> bool:
        """False: offsets are committed with the results."""
        return False

    def _confirm(self) -> None:
        self._records.flush()
        if self._records.purged():
            # The next call reports the cause; this one cannot succeed here and changes nothing.
            self._step("produce", self._producer.begin_transaction)
        self._records.confirm()

    def _step(self, name: str, call: Callable[[], None]) -> None:
        """Call a step, and retry it as long as that may help. Raises RetryTransaction if the transaction must be
        aborted."""
        delays = backoff(self._settings.retry)
        while True:
            self.asked = time.monotonic()
            try:
                return call()
            except RAISED as raised:
                error = error_of(raised)
            finally:
                self.asked = None
            # This is all that librdkafka reports when no broker is the coordinator.
            waits = name == "init" and error.code() == KafkaError._TIMED_OUT
            reason = "no broker coordinates transactions, `tagbus check` says why" if waits else error.str()
            log.warning("transaction: step=%s error=%s reason=%s", name, error.name(), reason)
            match action_for(error):
                case ErrorAction.END:
                    raise self._ending(name, error)
                case ErrorAction.ABORT if name != "abort":
                    raise RetryTransaction(error.str(), error)
            telemetry.RETRIES.labels(step=name).inc()
            self._records.check_patience()
            time.sleep(next(delays))

    def _ending(self, step: str, error: KafkaError) -> TagbusError:
        # The next step, whichever it is, reports a refused record; otherwise the topic of the offsets is refused.
        unsent = self._records.unsent() if not error.fatal() else ""
        topic = unsent or self._source
        ending = classify(error, self._settings.kafka, topic, "Write" if unsent else "Read")
        return ending or Fatal(f"transaction: {step} failed ({error.name()}): {error.str()}")


class AtLeastOnce:
    """Offsets are committed after brokers confirm the results: a crash in between duplicates results and loses none.

    Commits do not block sending: one commit covers all batches sent since the previous one.
    """

    def __init__(
        self, records: RecordProducer, member: GroupMember, in_flight: InFlight, settings: Settings, source: str
    ) -> None:
        """`source`: the topic whose offsets are committed."""
        self._records = records
        self._member = member
        self._in_flight = in_flight
        self._settings = settings
        self._source = source
        # In order of offsets within each partition; the first `_asked_for` of them are in the pending commit.
        self._sent: list[InFlightBatch] = []
        self._asked_for = 0
        self._answer: Future[KafkaError | None] | None = None
        self._delays = backoff(settings.retry)
        # When to commit next, of time.monotonic().
        self._next = 0.0
        # The poll thread commits, so this thread never hangs.
        self.asked: float | None = None

    def open(self) -> None:
        """Nothing to prepare."""

    def send(self, entries: Sequence[InFlightBatch]) -> None:
        """Produce and wait for all confirmations; `committed` commits the offsets."""
        try:
            self._records.produce(entries)
            self._records.confirm()
        except RetryTransaction as retry:
            if retry.error is not None and (retry.error.fatal() or retry.error.code() == KafkaError._FATAL):
                raise Fatal(f"Kafka client failed: {retry}") from None
            self._records.purge()
            self._records.sort_failures()
            raise
        self._in_flight.sent(entries)
        self._sent += entries

    def answered(self) -> bool:
        """Whether the pending commit is done."""
        return self._answer is not None and self._answer.done()

    def committed(self) -> list[InFlightBatch]:
        """Return the batches of a commit that is done, and start the next commit when it is due."""
        done: list[InFlightBatch] = []
        if self._answer is not None and self._answer.done():
            error, self._answer = self._answer.result(), None
            if error is None:
                done, self._sent = self._sent[: self._asked_for], self._sent[self._asked_for :]
                self._delays = backoff(self._settings.retry)
            else:
                self._failed(error)
        if self._answer is None and time.monotonic() >= self._next:
            self._commit()
        return done

    def uncommitted(self) -> bool:
        """Whether a batch of an assigned partition is sent and not committed."""
        return any(map(self._in_flight.owns, self._sent))

    def _commit(self) -> None:
        self._sent = [entry for entry in self._sent if self._in_flight.owns(entry)]
        self._asked_for = len(self._sent)
        if self._sent:
            self._answer = self._member.commit(_offsets(self._sent))
            self._next = time.monotonic() + COMMIT_SECONDS

    def _failed(self, error: KafkaError) -> None:
        """Commit again later, or raise what ends the worker."""
        ending = classify(error, self._settings.kafka, self._source)
        if ending is not None:
            raise ending
        log.warning("commit: error=%s reason=%s", error.name(), error.str())
        telemetry.RETRIES.labels(step="commit").inc()
        if not (error.retriable() or error.code() in _STALE or error.code() in _WAITED_OUT):
            raise Fatal(f"commit failed ({error.name()}): {error.str()}")
        self._next = time.monotonic() + next(self._delays)


def _offsets(entries: Sequence[InFlightBatch]) -> list[TopicPartition]:
    """The last offset plus one of each partition; batches of a partition are in order."""
    last = {entry.batch.partition: entry.batch.next_offset for entry in entries}
    return [TopicPartition(*partition, offset) for partition, offset in last.items()]
