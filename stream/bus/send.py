"""How results and offsets reach Kafka: in one transaction, or results first and offsets after.

Exactly once: results, dead letters and offsets are one Kafka transaction (KIP-98, KIP-447), begun only when the
results are there, because an open one holds up every read_committed reader and times out.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from tagbus.stream import telemetry
from tagbus.stream.bus import client
from tagbus.stream.bus.deadletter import dead_letter, too_large
from tagbus.stream.bus.flight import Flight, Flights, Outgoing
from tagbus.stream.config import Settings
from tagbus.stream.errors import Fatal, UserError
from tagbus.stream.retry import backoff

log = logging.getLogger(__name__)

# One call of a transaction's step, in seconds; a step that timed out is called again, its outcome is unknown.
STEP_SECONDS = 10.0
_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
# Of a commit of offsets by a member whose partitions went meanwhile.
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
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
    }
)


class Again(Exception):
    """Nothing of it counts; the same results may be published again while their partitions are ours."""

    def __init__(self, reason: str, error: KafkaError | None = None) -> None:
        super().__init__(reason)
        self.error = error


class Abandoned(Exception):
    """The worker stops and waits no longer."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One record on its way, and which verdict it belongs to."""

    flight: Flight
    index: int
    outgoing: Outgoing


class Member(Protocol):
    """This worker as a member of its group. The client lets one thread at a time into the consumer, and makes every
    other wait, even in a rebalance callback: the poll thread acts for the one that publishes."""

    def group(self) -> object:
        """The group's metadata, as fresh as the poll thread's last turn."""
        ...

    def commit(self, offsets: list[TopicPartition], given_up: Callable[[], bool]) -> KafkaError | None:
        """Commit and wait; None when it is done."""
        ...


class Sender(Protocol):
    """How the results and offsets of some batches reach Kafka."""

    def open(self) -> None:
        """Make ready; waits for brokers. Raises Abandoned, Fenced, Fatal, UserError."""
        ...

    def send(self, flights: Sequence[Flight]) -> None:
        """Results out and offsets committed. Raises Again, Abandoned, Fenced, Fatal, UserError."""
        ...


class Wire:
    """What both guarantees share: producing, and knowing what failed."""

    def __init__(
        self,
        settings: Settings,
        producer: Producer,
        flights: Flights,
        given_up: Callable[[], bool],
    ) -> None:
        """`given_up` says when to wait no longer."""
        self._settings = settings
        self._producer = producer
        self._flights = flights
        self.given_up = given_up
        self._failed: list[tuple[KafkaError, _Part]] = []
        # A broker refuses what it finds too large by the whole request, so the next try sends each record alone.
        self._alone = False

    def produce(self, flights: Sequence[Flight]) -> None:
        """Produce all records and wait until the brokers have them. Raises Again where they have not."""
        self._failed.clear()
        for flight in flights:
            for index, verdict in enumerate(flight.verdicts or ()):
                for outgoing in verdict.outgoing:
                    self._produce(_Part(flight, index, outgoing))
                    if self._alone:
                        self._flush()
                        self._check_failures()
        self._flush()
        self._check_failures()
        self._alone = False

    def _flush(self) -> None:
        with client.serving():
            while self._producer.flush(1.0):
                self.check_patience()

    def check_patience(self) -> None:
        """Raise Abandoned when the worker waits no longer."""
        if self.given_up():
            raise Abandoned

    def still_ours(self, flights: Sequence[Flight]) -> bool:
        """Whether every partition is held in the epoch in which its batch was read."""
        return all(self._flights.owns(flight) for flight in flights)

    def _produce(self, part: _Part) -> None:
        out = part.outgoing

        def failed(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                self._failed.append((error, part))

        while True:
            try:
                self._producer.produce(
                    out.topic, out.value, out.key, out.partition, on_delivery=failed, headers=list(out.headers)
                )
                return
            except BufferError:
                with client.serving():
                    self._producer.poll(0.1)
                self.check_patience()
            except KafkaException as exception:
                # Refused before it was queued: too large for the client, or the transaction has failed already.
                self._failed.append((client.error_of(exception), part))
                return

    def _check_failures(self) -> None:
        """Turn what is too large into dead letters, and have the rest sent again: raises Again if any failed."""
        if not self._failed:
            return
        failed, self._failed = self._failed, []
        large = [part for error, part in failed if error.code() in _LARGE]
        if large and self._alone:
            for part in large:
                self._set_aside(part)
        self._alone = self._alone or bool(large)
        for error, part in failed:
            ending = client.named(error, part.outgoing.topic)
            # Fenced and fatal show their true cause in the step that ends the transaction.
            if ending is not None and error.code() not in client.FENCED and not error.fatal():
                raise ending
        first = failed[0][0]
        raise Again(f"{len(failed)} records were not delivered: {first.str()}", first)

    def _set_aside(self, part: _Part) -> None:
        """A result that the broker finds too large becomes a dead letter; a dead letter cannot."""
        out, limit = part.outgoing, self._settings.batch.record_bytes
        size = len(out.value or b"") + len(out.key or b"")
        if out.topic == self._settings.topics.dead_letters or part.flight.verdicts is None:
            raise UserError(
                f"topic {out.topic} does not take a record of {size} bytes: "
                f"raise its max.message.bytes, or lower batch.record_bytes ({limit})"
            )
        error = too_large(out.topic, size, "at most the topic's max.message.bytes")
        source = part.flight.batch.sources[part.index]
        part.flight.verdicts[part.index] = dead_letter(self._settings, source, error)


class ExactlyOnce:
    """Results, dead letters and offsets in one transaction (KIP-98, KIP-447)."""

    def __init__(self, wire: Wire, producer: Producer, member: Member, settings: Settings) -> None:
        self._wire = wire
        self._producer = producer
        self._member = member
        self._settings = settings

    def open(self) -> None:
        """Fence earlier processes of this transactional.id and end what they left open."""
        self._step("init", lambda: self._producer.init_transactions(STEP_SECONDS))

    def send(self, flights: Sequence[Flight]) -> None:
        """One transaction for these batches."""
        try:
            self._step("begin", self._producer.begin_transaction)
            self._wire.produce(flights)
            # Taken before ownership is checked: should the partition go after the check, this generation is stale by
            # the time another member may have it, and the broker refuses it.
            group = self._member.group()
            if not self._wire.still_ours(flights):
                raise Again("a partition has gone")
            offsets = _offsets(flights)
            self._step("offsets", lambda: self._producer.send_offsets_to_transaction(offsets, group, STEP_SECONDS))
            self._step("commit", lambda: self._producer.commit_transaction(STEP_SECONDS))
        except Again:
            self._step("abort", lambda: self._producer.abort_transaction(STEP_SECONDS))
            telemetry.TRANSACTIONS.labels(outcome="aborted").inc()
            raise
        except Abandoned:
            # An open transaction would hold up read_committed readers until it times out.
            with suppress(KafkaException):
                self._producer.abort_transaction(1.0)
            raise
        telemetry.TRANSACTIONS.labels(outcome="committed").inc()

    def _step(self, name: str, call: Callable[[], None]) -> None:
        """One step, called again as long as librdkafka says that this may help (its INTRODUCTION.md, Transactional
        producer API). Raises Again where the transaction must be aborted."""
        delays = backoff(self._settings.retry)
        while True:
            try:
                return call()
            except KafkaException as exception:
                error = client.error_of(exception)
            if error.code() in client.FENCED or error.fatal():
                raise client.named(error, "") or Fatal(error.str())
            log.warning("transaction: step=%s error=%s reason=%s", name, error.name(), error.str())
            telemetry.RETRIES.labels(step=name).inc()
            ending = client.named(error, self._settings.topics.tagged)
            if ending is not None:
                raise ending
            if error.txn_requires_abort() and name != "abort":
                raise Again(error.str())
            if not error.retriable():
                raise Fatal(f"transaction: {name} failed ({error.name()}): {error.str()}")
            self._wire.check_patience()
            time.sleep(next(delays))


class AtLeastOnce:
    """Results confirmed by the brokers first, offsets committed after: a crash in between doubles, nothing is lost."""

    def __init__(self, wire: Wire, member: Member, settings: Settings) -> None:
        self._wire = wire
        self._member = member
        self._settings = settings

    def open(self) -> None:
        """Nothing to make ready."""

    def send(self, flights: Sequence[Flight]) -> None:
        """Produce, wait for every confirmation, commit."""
        try:
            self._wire.produce(flights)
        except Again as again:
            if again.error is not None and (again.error.fatal() or again.error.code() == KafkaError._FATAL):
                raise Fatal(f"Kafka client failed: {again}") from None
            raise
        delays = backoff(self._settings.retry)
        while self._wire.still_ours(flights):
            error = self._member.commit(_offsets(flights), self._wire.given_up)
            if error is None:
                return
            ending = client.named(error, self._settings.topics.content)
            if ending is not None:
                raise ending
            log.warning("commit: error=%s reason=%s", error.name(), error.str())
            telemetry.RETRIES.labels(step="commit").inc()
            if not (error.retriable() or error.code() in _STALE or error.code() in _WAITED_OUT):
                raise Fatal(f"commit failed ({error.name()}): {error.str()}")
            self._wire.check_patience()
            time.sleep(next(delays))
        raise Again("a partition has gone")


def _offsets(flights: Sequence[Flight]) -> list[TopicPartition]:
    """The last offset plus one of each partition; the flights of a partition are in order."""
    last = {flight.batch.place: flight.batch.next_offset for flight in flights}
    return [TopicPartition(*place, offset) for place, offset in last.items()]
