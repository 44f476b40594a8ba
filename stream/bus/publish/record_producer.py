"""Records out of this process: handed to librdkafka, confirmed by the brokers, and sorted where they were not."""

from collections.abc import Callable, Sequence
from typing import NoReturn

from confluent_kafka import KafkaError, Message, Producer

from tagbus.stream.bus.in_flight import InFlight, InFlightBatch
from tagbus.stream.bus.process.dead_letters import too_large
from tagbus.stream.bus.processor import Outgoing
from tagbus.stream.config import Settings
from tagbus.stream.errors import Poison, UserError
from tagbus.stream.kafka.errors import RAISED, classify, error_of, map_kafka_errors

_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
_PURGED = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})


class RetryTransaction(Exception):
    """Nothing of it counts; the same results may be published again while their partitions are ours."""

    def __init__(self, reason: str, error: KafkaError | None = None) -> None:
        super().__init__(reason)
        self.error = error


class RecordRefused(RetryTransaction):
    """A broker takes the result of one record not even alone: the batch is to be tagged again without it."""

    def __init__(self, entry: InFlightBatch, index: int, error: Poison) -> None:
        super().__init__(str(error))
        self.entry = entry
        self.index = index
        self.poison = error


class Abandoned(Exception):
    """The worker stops and waits no longer."""


class RecordProducer:
    """What both guarantees share: producing, and knowing what failed."""

    def __init__(
        self,
        settings: Settings,
        producer: Producer,
        in_flight: InFlight,
        given_up: Callable[[], bool],
    ) -> None:
        """`given_up` says when to wait no longer."""
        self._settings = settings
        self._producer = producer
        self._in_flight = in_flight
        self.given_up = given_up
        # The error and the topic of each record that was not delivered, but not which record it was: a callback of
        # its own for each doubles the cost of producing it. Whoever must know sends each record alone.
        self._failed: list[tuple[KafkaError, str]] = []
        # A broker refuses what it finds too large by the whole request, so the next try sends each record alone.
        self._alone = False

    def produce(self, entries: Sequence[InFlightBatch]) -> None:
        """Hand all records to the client. Raises RetryTransaction where one that was sent alone failed, RecordRefused
        where it is too
        large, and Abandoned."""
        self._failed.clear()
        put = self._put_alone if self._alone else self._put
        for entry in entries:
            put(entry)

    def confirm(self) -> None:
        """Wait until the brokers have all records. Raises RetryTransaction where they have not, Abandoned, Fenced,
        Fatal."""
        self.flush()
        if self._failed:
            error = self._failed[0][0]
            raise RetryTransaction(f"{len(self._failed)} records were not delivered: {error.str()}", error)
        self._alone = False

    def flush(self) -> None:
        """Wait until the fate of every record is known."""
        with map_kafka_errors(self._settings.kafka):
            while self._producer.flush(1.0):
                self.check_patience()

    def purged(self) -> bool:
        """Whether records were thrown away because their transaction had failed: it knows why, they do not."""
        return bool(self._failed) and all(error.code() in _PURGED for error, _ in self._failed)

    def sort_failures(self) -> None:
        """After a try that failed, and was aborted. What is too large is found by the next one; raises UserError for
        what nobody but an operator can mend."""
        # What the abort threw away is told here: told later, it would pass for records of the next try.
        self.flush()
        failed, self._failed = self._failed, []
        self._alone = self._alone or any(error.code() in _LARGE for error, _ in failed)
        for error, topic in failed:
            ending = classify(error, self._settings.kafka, topic, "Write")
            # Fenced and fatal show their true cause in the step that ends the transaction.
            if isinstance(ending, UserError):
                raise ending

    def unsent(self) -> str:
        """The topics of the records that failed, as a message names them."""
        with map_kafka_errors(self._settings.kafka):
            self._producer.poll(0)
        return " or ".join(sorted({topic for _, topic in self._failed}))

    def check_patience(self) -> None:
        """Raise Abandoned when the worker waits no longer."""
        if self.given_up():
            raise Abandoned

    def still_ours(self, entries: Sequence[InFlightBatch]) -> bool:
        """Whether every partition is held in the epoch in which its batch was read."""
        return all(self._in_flight.owns(entry) for entry in entries)

    def _put(self, entry: InFlightBatch) -> None:
        """The hot loop: what it does for each record counts."""
        produce, lost = self._producer.produce, self._lost
        for outcome in entry.outcomes or ():
            for out in outcome.outgoing:
                try:
                    produce(out.topic, out.value, out.key, out.partition, lost, headers=list(out.headers))
                except BufferError:
                    self._make_room()
                    self._put_one(out)
                except RAISED as raised:
                    self._failed.append((error_of(raised), out.topic))

    def _put_one(self, out: Outgoing) -> None:
        while True:
            try:
                self._producer.produce(
                    out.topic, out.value, out.key, out.partition, self._lost, headers=list(out.headers)
                )
                return
            except BufferError:
                self._make_room()
            except RAISED as raised:
                # RecordRefused before it was queued: too large for the client, or the transaction has failed already.
                self._failed.append((error_of(raised), out.topic))
                return

    def _make_room(self) -> None:
        with map_kafka_errors(self._settings.kafka):
            self._producer.poll(0.1)
        self.check_patience()

    def _lost(self, error: KafkaError | None, message: Message) -> None:
        """Called by librdkafka for each record that was not delivered (delivery.report.only.error)."""
        if error is not None:
            self._failed.append((error, message.topic() or ""))

    def _put_alone(self, entry: InFlightBatch) -> None:
        for index, outcome in enumerate(entry.outcomes or ()):
            for out in outcome.outgoing:
                self._put_one(out)
                self.flush()
                if not self._failed:
                    continue
                error = self._failed[0][0]
                if error.code() in _LARGE:
                    self._refuse(out, entry, index)
                raise RetryTransaction(f"a record was not delivered: {error.str()}", error)

    def _refuse(self, out: Outgoing, entry: InFlightBatch, index: int) -> NoReturn:
        """Raise RecordRefused for a record that the broker finds too large; UserError where it goes with a dead
        letter."""
        limit = self._settings.batch.record_bytes
        size = len(out.value or b"") + len(out.key or b"")
        if entry.outcomes is None or entry.outcomes[index].kind == "dead_lettered":
            raise UserError(
                f"topic {out.topic} does not take a record of {size} bytes: "
                f"raise its max.message.bytes, or lower batch.record_bytes ({limit})"
            )
        raise RecordRefused(entry, index, too_large(out.topic, size, "at most the topic's max.message.bytes"))
