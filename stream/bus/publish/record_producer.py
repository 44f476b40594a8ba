"""Produce records: hand them to librdkafka, confirm delivery, and sort out the failures."""

import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from confluent_kafka import KafkaError, Message, Producer

from tagbus.stream.bus.in_flight import InFlight, InFlightBatch
from tagbus.stream.bus.process.dead_letters import too_large
from tagbus.stream.bus.processor import Outgoing
from tagbus.stream.config import Settings
from tagbus.stream.errors import Poison, TopicRecreated, UserError
from tagbus.stream.kafka.errors import NO_TOPIC, PURGED, RAISED, classify, error_of, lost, map_kafka_errors

_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
# The timeout of one request for a topic's metadata, while records are unconfirmed.
LIST_SECONDS = 2.0
# How long records for a topic that was created again may be unconfirmed while all of its partitions have leaders. Where
# those are others the client never confirms them, and each attempt would end after kafka.transaction_seconds. A broker
# that is killed leads its partitions for 9 s more (broker.session.timeout.ms).
RECREATED_SECONDS = 12.0


class RetryTransaction(Exception):
    """The whole transaction is void; its results may be published again while their partitions are assigned."""

    def __init__(self, reason: str, error: KafkaError | None = None) -> None:
        super().__init__(reason)
        self.error = error


class RecordRefused(RetryTransaction):
    """A broker refuses the result of one record, even alone: the batch must be processed again without it."""

    def __init__(self, entry: InFlightBatch, index: int, error: Poison) -> None:
        super().__init__(str(error))
        self.entry = entry
        self.index = index
        self.poison = error


class Abandoned(Exception):
    """The worker is ending and stops waiting."""


class RecordProducer:
    """Produces records and tracks failures, for both delivery guarantees. Belongs to the publish thread."""

    def __init__(
        self,
        settings: Settings,
        producer: Producer,
        in_flight: InFlight,
        given_up: Callable[[], bool],
    ) -> None:
        """`given_up` returns whether to stop waiting."""
        self._settings = settings
        self._producer = producer
        self._in_flight = in_flight
        self.given_up = given_up
        # Error and topic of each undelivered record, but not which record: a callback for each record doubles the cost
        # of producing it. To find out, records are sent one at a time.
        self._failed: list[tuple[KafkaError, str]] = []
        # A broker refuses a whole request because of one record that is too large, so the next attempt sends each
        # record alone.
        self._alone = False
        self._entries: Sequence[InFlightBatch] = ()
        # The missing topics of the last attempt, for any thread to read.
        self.absent: tuple[str, ...] = ()
        # Topics that were created again under this client; replaced as a whole, by the poll thread.
        self.recreated: frozenset[str] = frozenset()
        # Since when records for them are unconfirmed, over all attempts, of time.monotonic().
        self._unconfirmed: float | None = None

    def produce(self, entries: Sequence[InFlightBatch]) -> None:
        """Hand all records to the client. Raises Abandoned; RetryTransaction if a record that was sent alone failed,
        and RecordRefused if it is too large."""
        self._failed.clear()
        self._entries = entries
        put = self._put_alone if self._alone else self._put
        for entry in entries:
            put(entry)

    def confirm(self) -> None:
        """Wait until brokers have confirmed all records. Raises RetryTransaction if they do not, Abandoned, Fenced,
        Fatal."""
        self.flush()
        if self._failed:
            error = self._failed[0][0]
            raise RetryTransaction(f"{len(self._failed)} records were not delivered: {error.str()}", error)
        self._alone = False
        self._unconfirmed = None

    def flush(self) -> None:
        """Wait until every record is confirmed or has failed. Raises RetryTransaction if their topic was deleted,
        TopicRecreated if this client cannot deliver to the new one."""
        with map_kafka_errors(self._settings.kafka):
            while self._unconfirmed_records():
                self.check_patience()
                self._give_up_absent()
                self._give_up_recreated()

    def _unconfirmed_records(self) -> int:
        """How many records are unconfirmed after a second. A fatal error that the client has lost is reported by the
        next step of the transaction, with its code."""
        try:
            return self._producer.flush(1.0)
        except SystemError as raised:
            if not lost(raised):
                raise
            return 1

    def look_for_topics(self, entries: Sequence[InFlightBatch], *others: str) -> None:
        """Find out which topics of these results, and of `others`, do not exist: `absent`.

        This refreshes the client's metadata: recreated topics and added partitions.
        """
        topics = self._topics_of(entries).union(others)
        self.absent = tuple(topic for topic in sorted(topics) if not self._exists(topic))

    def _give_up_absent(self) -> None:
        """Fail early: the client would wait for a deleted topic until its records time out, and its transaction until
        the broker ends it and fences this producer."""
        self.look_for_topics(self._entries)
        if self.absent:
            raise RetryTransaction(f"topic {' and '.join(self.absent)} does not exist")

    def _give_up_recreated(self) -> None:
        again, now = sorted(self.recreated & self._topics_of(self._entries)), time.monotonic()
        if not again or not all(self._led(topic) for topic in again):
            self._unconfirmed = None
            return
        self._unconfirmed = self._unconfirmed or now
        if now - self._unconfirmed > RECREATED_SECONDS:
            raise TopicRecreated(" and ".join(again), "this process cannot write to it")

    def _exists(self, topic: str) -> bool:
        """Whether it exists. True also if no broker answers, or it may not be described: other checks report that
        better."""
        try:
            found = self._producer.list_topics(topic, LIST_SECONDS).topics[topic]
        except RAISED:
            return True
        return bool(found.partitions) if found.error is None else found.error.code() not in NO_TOPIC

    def _led(self, topic: str) -> bool:
        """Whether brokers answer, and each of its partitions has a leader."""
        try:
            found = self._producer.list_topics(topic, LIST_SECONDS)
        except RAISED:
            return False
        partitions = found.topics[topic].partitions.values()
        return bool(partitions) and all(partition.leader in found.brokers for partition in partitions)

    @staticmethod
    def _topics_of(entries: Sequence[InFlightBatch]) -> set[str]:
        return {out.topic for entry in entries for outcome in entry.outcomes or () for out in outcome.outgoing}

    def purged(self) -> bool:
        """Whether records failed only because their transaction did: the next call reports the cause."""
        return bool(self._failed) and all(error.code() in PURGED for error, _ in self._failed)

    def purge(self) -> None:
        """Drop unconfirmed records. Only without a transaction: aborting one drops its records, in order."""
        self._producer.purge()

    def sort_failures(self) -> None:
        """Evaluate a failed, aborted attempt: if a record was too large, the next attempt finds out which. Raises
        UserError for a missing right; for a missing topic, the next attempt waits."""
        # Collect the reports of records that the abort purged; later they would be attributed to the next attempt.
        self.flush()
        failed, self._failed = self._failed, []
        self._alone = self._alone or any(error.code() in _LARGE for error, _ in failed)
        for error, topic in failed:
            ending = classify(error, self._settings.kafka, topic, "Write")
            # The step that ends the transaction reports fenced and fatal errors.
            if isinstance(ending, UserError) and error.code() not in NO_TOPIC:
                raise ending

    def unsent(self) -> str:
        """The topics of the records that failed, for a message."""
        with map_kafka_errors(self._settings.kafka):
            self._producer.poll(0)
        return " or ".join(sorted({topic for _, topic in self._failed}))

    def check_patience(self) -> None:
        """Raise Abandoned if the worker stops waiting."""
        if self.given_up():
            raise Abandoned

    def still_ours(self, entries: Sequence[InFlightBatch]) -> bool:
        """Whether every partition is still assigned in the epoch of its batch."""
        return all(self._in_flight.owns(entry) for entry in entries)

    def _put(self, entry: InFlightBatch) -> None:
        """Produce the records of a batch. This is the hot loop: every operation per record counts."""
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
                # Refused before it was queued: too large for the client, or the transaction has failed already.
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
        """Raise RecordRefused for a record that is too large for the broker; UserError if it is a dead letter."""
        limit = self._settings.batch.record_bytes
        size = len(out.value or b"") + len(out.key or b"")
        if entry.outcomes is None or entry.outcomes[index].kind == "dead_lettered":
            raise UserError(
                f"topic {out.topic} does not take a record of {size} bytes: "
                f"raise its max.message.bytes, or lower batch.record_bytes ({limit})"
            )
        raise RecordRefused(entry, index, too_large(out.topic, size, "at most the topic's max.message.bytes"))
