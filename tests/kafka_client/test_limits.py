"""The size of a record as the broker counts it, to the byte."""

from collections.abc import Callable, Mapping

import pytest
from confluent_kafka import KafkaError

from tagbus.stream.config import BatchSettings, KafkaSettings, Settings
from tagbus.stream.contract.codec import Record
from tagbus.stream.errors import InvalidEvent, UserError
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.admin.layout import KAFKA_BYTES
from tagbus.stream.kafka.limits import SizeLimit, batch_bytes, expected_limit, topic_limit
from tagbus.stream.kafka.writer import TopicWriter
from tagbus.stream.local.mock import MockCluster
from tests.conftest import Broker
from tests.support import Layout, consume_all

Topics = Callable[[Mapping[str, Layout]], dict[str, str]]
MOST = 20_000


def filled(record: Record, size: int) -> Record:
    """The record with a value so long that its batch has this size."""
    empty = batch_bytes(Record(record.key, bytes(size - 200), record.headers))
    full = Record(record.key, bytes(size - 200 + size - empty), record.headers)
    assert batch_bytes(full) == size
    return full


@pytest.mark.parametrize(
    "record", [Record(b"key", b""), Record(None, b""), Record("ł".encode(), b"", (("a", b"x" * 100), ("ł", None)))]
)
def test_a_record_of_the_limit_is_taken_and_one_byte_more_is_not(kafka: Broker, topics: Topics, record: Record) -> None:
    topic = topics({"t": (1, {"max.message.bytes": str(MOST)})})["t"]
    settings = KafkaSettings(brokers=kafka.address)
    with TopicWriter(settings, topic) as writer:
        writer.send(filled(record, MOST))
    with pytest.raises(UserError, match="Message size too large"), TopicWriter(settings, topic) as writer:
        writer.send(filled(record, MOST + 1))
    assert writer.unconfirmed == {0}
    assert len(consume_all(kafka.address, topic)) == 1


def test_the_limit_is_the_topics(kafka: Broker, topics: Topics) -> None:
    own, default = topics({"own": (1, {"max.message.bytes": str(MOST)}), "default": 1}).values()
    settings = KafkaSettings(brokers=kafka.address)
    assert topic_limit(settings, own) == SizeLimit(MOST, f"max.message.bytes of topic {own}")
    found = topic_limit(settings, default)
    assert found is not None
    assert found.most == KAFKA_BYTES


def test_many_small_records_fit_a_topic_with_a_low_limit(kafka: Broker, topics: Topics) -> None:
    """Each is far below it, and a batch of librdkafka's size is not."""
    topic = topics({"t": (1, {"max.message.bytes": str(MOST)})})["t"]
    with TopicWriter(KafkaSettings(brokers=kafka.address), topic) as writer:
        for number in range(200):
            writer.send(Record(b"%d" % number, bytes(1000)))
    assert writer.confirmed == 200


def test_many_small_results_fit_a_topic_whose_limit_is_just_above_the_setting(kafka: Broker, topics: Topics) -> None:
    topic = topics({"t": (1, {"max.message.bytes": str(MOST)})})["t"]
    given = KafkaSettings(brokers=kafka.address, delivery="at_least_once", options={"compression.type": "none"})
    errors: list[KafkaError] = []
    producer = clients.result_producer(
        Settings(kafka=given, batch=BatchSettings(record_bytes=MOST - 1000)), errors.append
    )
    for number in range(200):
        producer.produce(topic, bytes(1000), b"%d" % number)
    assert producer.flush(30) == 0
    assert len(consume_all(kafka.address, topic)) == 200
    assert errors == []


def test_a_client_that_compresses_has_no_limit_that_is_known_before(kafka: Broker, topics: Topics) -> None:
    options = {"compression.type": "zstd"}
    assert topic_limit(KafkaSettings(brokers=kafka.address, options=options), topics({"t": 1})["t"]) is None


def test_brokers_that_do_not_say_it(mock_kafka: MockCluster) -> None:
    mock_kafka.topic("t", 1)
    assert topic_limit(KafkaSettings(brokers=mock_kafka.address), "t") is None


def test_without_a_broker_it_is_kafkas_default_or_the_setting_above_it() -> None:
    assert expected_limit(Settings()) == SizeLimit(KAFKA_BYTES, "Kafka's default of max.message.bytes")
    larger = Settings(batch=BatchSettings(record_bytes=3_000_000))
    assert expected_limit(larger) == SizeLimit(3_048_000, "max.message.bytes by batch.record_bytes")


def test_a_record_that_is_too_large_is_told_with_size_and_limit() -> None:
    limit = SizeLimit(MOST, "of a test")
    limit.check(filled(Record(b"a", b""), MOST))
    with pytest.raises(
        InvalidEvent, match=r"value: a record of 20001 bytes is wrong, expected at most 20000 bytes, of a"
    ):
        limit.check(filled(Record(b"a", b""), MOST + 1))
