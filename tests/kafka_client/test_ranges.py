"""A bounded range of a topic: its records at one time, read once; and records that are confirmed one by one."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Message

from tagbus.stream.config import KafkaSettings
from tagbus.stream.contract.codec import Record
from tagbus.stream.errors import DependencyDown, TopicMissing
from tagbus.stream.kafka import ranges
from tagbus.stream.kafka.message import record_of, timestamp
from tagbus.stream.kafka.ranges import OffsetRange, current_range, read_all, read_range
from tagbus.stream.kafka.writer import TopicWriter
from tagbus.stream.local.mock import MockCluster
from tests.conftest import Broker
from tests.support import Layout, consume_all, produce

Topics = Callable[[Mapping[str, Layout]], dict[str, str]]


def keys(messages: list[Message]) -> list[bytes]:
    return [bytes(message.key() or b"") for message in messages]


def numbered(count: int) -> list[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
    return [(b"%d" % number, b"value", []) for number in range(count)]


def test_it_ends_with_what_was_there_when_it_was_fixed(kafka: Broker, topics: Topics) -> None:
    topic, given = topics({"t": 2})["t"], KafkaSettings(brokers=kafka.address)
    produce(kafka.address, topic, numbered(20))
    fixed = current_range(given, topic)
    produce(kafka.address, topic, [(b"later", b"value", [])])
    assert fixed.offsets == 20
    assert sorted(keys(list(read_range(given, fixed)))) == sorted(b"%d" % number for number in range(20))
    # A second time the same.
    assert len(list(read_range(given, fixed))) == 20


def test_a_part_of_it_can_be_named(kafka: Broker, topics: Topics) -> None:
    topic, given = topics({"t": 2})["t"], KafkaSettings(brokers=kafka.address)
    for partition in (0, 1):
        produce(kafka.address, topic, numbered(5), partition)
    part = current_range(given, topic).after({1: 3})
    assert part == OffsetRange(topic, {1: 3}, {1: 5})
    assert keys(list(read_range(given, part))) == [b"3", b"4"]
    assert list(read_range(given, part.after({1: 5}))) == []


def test_it_may_begin_at_a_moment(kafka: Broker, topics: Topics) -> None:
    topic, given = topics({"t": 1})["t"], KafkaSettings(brokers=kafka.address)
    produce(kafka.address, topic, numbered(3))
    second = timestamp(consume_all(kafka.address, topic)[1])
    assert keys(list(read_all(given, topic, second)))[-1] == b"2"
    assert list(read_all(given, topic, datetime.now(UTC) + timedelta(days=1))) == []
    assert len(list(read_all(given, topic, datetime(1960, 1, 1, tzinfo=UTC)))) == 3


def test_an_empty_topic_is_read_at_once(kafka: Broker, topics: Topics) -> None:
    topic = topics({"t": 2})["t"]
    assert list(read_all(KafkaSettings(brokers=kafka.address), topic)) == []


def test_a_topic_that_is_not_there_is_named(kafka: Broker) -> None:
    with pytest.raises(TopicMissing, match="no-such-topic"):
        current_range(KafkaSettings(brokers=kafka.address), "no-such-topic")


def test_brokers_that_fall_silent_before_the_end_are_told(
    mock_kafka: MockCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "SILENCE_SECONDS", 0.5)
    mock_kafka.topic("t", 1)
    produce(mock_kafka.address, "t", numbered(1))
    with pytest.raises(DependencyDown, match="topic t: no record for"):
        list(read_range(KafkaSettings(brokers=mock_kafka.address), OffsetRange("t", {0: 0}, {0: 9})))


def test_what_is_written_is_confirmed(kafka: Broker, topics: Topics) -> None:
    topic = topics({"t": 2})["t"]
    records = [Record(b"%d" % number, b"value", (("name", b"x"), ("none", None))) for number in range(5)]
    with TopicWriter(KafkaSettings(brokers=kafka.address), topic) as writer:
        for record in records:
            writer.send(record, 1)
    assert writer.confirmed == 5
    found = consume_all(kafka.address, topic)
    assert [record_of(message) for message in found] == records
    assert {message.partition() for message in found} == {1}


def test_a_topic_that_is_not_there_takes_nothing(kafka: Broker) -> None:
    with pytest.raises(TopicMissing, match="no-such-topic"):
        TopicWriter(KafkaSettings(brokers=kafka.address), "no-such-topic")


def test_brokers_that_take_nothing_are_told(mock_kafka: MockCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tagbus.stream.kafka.writer.FLUSH_SECONDS", 0.5)
    mock_kafka.topic("t", 1)
    writer = TopicWriter(KafkaSettings(brokers=mock_kafka.address), "t")
    mock_kafka.down()
    writer.send(Record(b"a", b"value"))
    with pytest.raises(DependencyDown, match="did not confirm 1 records"):
        writer.__exit__(None, None, None)
