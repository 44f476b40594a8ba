"""Unconfirmed records: what is waited for, and when the client is given up. Without Kafka."""

from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from tagbus.stream.bus.in_flight import InFlight, InFlightBatch
from tagbus.stream.bus.processor import Batch, Outgoing, RecordOutcome
from tagbus.stream.bus.publish import record_producer
from tagbus.stream.bus.publish.record_producer import RecordProducer
from tagbus.stream.errors import TopicRecreated
from tagbus.stream.kafka.message import Partition
from tests.bus.harness import settings

SOURCE: Partition = ("content", 0)


class Unconfirmed:
    """A producer whose records are confirmed only after some looks."""

    def __init__(self) -> None:
        self.looks = 3
        self.answers = True
        self.raised: list[SystemError] = []
        self.leader = 1

    def produce(self, *_: object, **__: object) -> None:
        pass

    def flush(self, _: float) -> int:
        if self.raised:
            raise self.raised.pop()
        self.looks -= 1
        return max(0, self.looks)

    def list_topics(self, topic: str, _: float) -> object:
        if not self.answers:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        partition = SimpleNamespace(leader=self.leader, error=None)
        found = SimpleNamespace(partitions={0: partition}, error=None)
        return SimpleNamespace(topics={topic: found}, brokers={1: None})


@pytest.fixture
def producer() -> Unconfirmed:
    return Unconfirmed()


@pytest.fixture
def records(producer: Unconfirmed, monkeypatch: pytest.MonkeyPatch) -> RecordProducer:
    """Which has sent one record for `tagged`, and waits no time for it."""
    monkeypatch.setattr(record_producer, "RECREATED_SECONDS", 0.0)
    made = RecordProducer(settings("nowhere:9"), producer, InFlight(1, 1), lambda: False)  # type: ignore[arg-type]
    outcome = RecordOutcome("tagged", (Outgoing("tagged", b"a", b"a", ()),))
    made.produce([InFlightBatch(Batch(SOURCE, 0, (), 1, 0.0), 0.0, [outcome])])
    return made


def test_a_client_that_cannot_write_to_a_topic_that_was_created_again_is_given_up(records: RecordProducer) -> None:
    records.recreated = frozenset({"tagged", "dead_letters"})
    with pytest.raises(TopicRecreated, match="topic tagged was deleted and created again"):
        records.flush()


def test_it_is_given_up_where_each_attempt_ends_sooner(records: RecordProducer, producer: Unconfirmed) -> None:
    """The client gives its records up after kafka.transaction_seconds."""
    records.recreated = frozenset({"tagged"})
    producer.looks = 2
    records.flush()
    producer.looks = 2
    with pytest.raises(TopicRecreated):
        records.flush()


def test_what_is_confirmed_in_time_is_no_reason(records: RecordProducer, producer: Unconfirmed) -> None:
    records.recreated = frozenset({"tagged"})
    for _ in range(2):
        producer.looks = 2
        records.confirm()


def test_records_for_other_topics_are_waited_for(records: RecordProducer) -> None:
    records.recreated = frozenset({"dead_letters"})
    records.flush()


@pytest.mark.parametrize("why", ["no broker answers", "no leader", "a leader that is away"])
def test_brokers_that_are_away_are_waited_for(records: RecordProducer, producer: Unconfirmed, why: str) -> None:
    """They confirm nothing of any topic."""
    records.recreated = frozenset({"tagged"})
    producer.answers = why != "no broker answers"
    producer.leader = {"no leader": -1, "a leader that is away": 2}.get(why, 1)
    records.flush()


def test_a_fatal_error_that_the_client_has_lost_is_left_to_its_next_call(
    records: RecordProducer, producer: Unconfirmed
) -> None:
    producer.raised = [
        SystemError("<method 'flush' of 'cimpl.Producer' objects> returned NULL without setting an exception")
    ]
    records.flush()
    assert producer.looks == 0
    # Any other is a bug
    producer.raised = [SystemError("bad argument to internal function")]
    with pytest.raises(SystemError, match="bad argument"):
        records.flush()
