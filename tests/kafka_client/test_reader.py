"""Topics read in no group: to their ends, then followed, on Apache Kafka; broker faults on librdkafka's mock."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from tagbus.stream.config import KafkaSettings
from tagbus.stream.errors import DependencyDown, MemoryLost, TopicMissing
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.follower import TopicFollower
from tagbus.stream.kafka.metadata import Watermarks, watermarks
from tagbus.stream.kafka.reader import Gap, Start, TopicReader
from tagbus.stream.local.mock import MockCluster
from tests.conftest import Broker
from tests.support import Layout, Record, consume_all, create_topics, produce, unique, wait_until

Topics = Callable[[Mapping[str, Layout]], dict[str, str]]
SECONDS = 120.0


def at(address: str) -> KafkaSettings:
    return KafkaSettings(brokers=address, group="g")


def records(count: int, name: str = "") -> list[Record]:
    return [(f"{name}{number}".encode(), b"value", []) for number in range(count)]


def lost(gap: Gap) -> MemoryLost:
    return MemoryLost(f"{gap}: lost")


def to_end(reader: TopicReader) -> list[bytes]:
    """The keys that are read until it has caught up."""
    keys: list[bytes] = []

    def step() -> bool:
        keys.extend(bytes(message.key() or b"") for message in reader.read(500, 0.2).messages)
        return reader.positions.caught_up()

    wait_until(step, SECONDS, "the ends")
    return keys


def one_more(reader: TopicReader) -> bytes:
    """The key of the next record."""
    (message,) = wait_until(lambda: reader.read(1, 0.2).messages, SECONDS, "one more record")
    return bytes(message.key() or b"")


def end_of(kafka: Broker, topic: str) -> int:
    """Where the first partition ends to a client that reads committed records."""
    client = clients.reader(at(kafka.address))
    try:
        return watermarks(client, at(kafka.address), (topic, 0)).high
    finally:
        client.close()


def test_it_reads_to_the_end_and_then_follows(kafka: Broker, topics: Topics) -> None:
    topic = topics({"t": 3})["t"]
    produce(kafka.address, topic, records(50))
    with TopicReader(at(kafka.address)) as reader:
        reader.discover([topic])
        assert (reader.positions.remaining(), reader.positions.caught_up()) == (50, False)
        assert sorted(to_end(reader)) == sorted(f"{number}".encode() for number in range(50))
        assert reader.positions.remaining() == 0

        produce(kafka.address, topic, records(1, "later"))
        assert one_more(reader) == b"later0"


def test_an_empty_topic_is_at_its_end(kafka: Broker, topics: Topics) -> None:
    topic = topics({"t": 2})["t"]
    with TopicReader(at(kafka.address)) as reader:
        reader.discover([topic])
        assert reader.positions.caught_up()
        assert reader.positions.next == {(topic, 0): 0, (topic, 1): 0}


@pytest.mark.parametrize("end", ["commit_transaction", "abort_transaction"])
def test_a_transaction_at_the_end_of_a_partition_is_no_record_and_no_hindrance(
    kafka: Broker, topics: Topics, end: str
) -> None:
    topic = topics({"t": 1})["t"]
    produce(kafka.address, topic, records(3))
    producer = Producer({"bootstrap.servers": kafka.address, "transactional.id": topic})
    producer.init_transactions(SECONDS)
    producer.begin_transaction()
    producer.produce(topic, b"value", b"in the transaction")
    producer.flush(SECONDS)
    getattr(producer, end)(SECONDS)

    with TopicReader(at(kafka.address)) as reader:
        # The coordinator writes the marker after it has answered.
        wait_until(lambda: end_of(kafka, topic) == 5, SECONDS, "the marker")
        reader.discover([topic])
        assert reader.positions.ends == {(topic, 0): 5}
        keys = to_end(reader)
        # The marker itself is offset 4.
        assert reader.positions.next == {(topic, 0): 5}
    assert keys[3:] == ([b"in the transaction"] if end == "commit_transaction" else [])


def test_an_open_transaction_is_beyond_the_end(kafka: Broker, topics: Topics) -> None:
    topic = topics({"t": 1})["t"]
    produce(kafka.address, topic, records(3))
    producer = Producer({"bootstrap.servers": kafka.address, "transactional.id": topic})
    producer.init_transactions(SECONDS)
    producer.begin_transaction()
    producer.produce(topic, b"value", b"open")
    producer.flush(SECONDS)

    with TopicReader(at(kafka.address)) as reader:
        reader.discover([topic])
        assert to_end(reader) == [b"0", b"1", b"2"]
        producer.commit_transaction(SECONDS)
        assert one_more(reader) == b"open"


def test_offsets_that_compaction_took_away_do_not_count(kafka: Broker, topics: Topics) -> None:
    # Given a topic whose segments are closed, and cleaned, as early as a broker does
    layout = {"cleanup.policy": "compact", "segment.ms": "1", "min.cleanable.dirty.ratio": "0.01"}
    topic = topics({"t": (1, layout)})["t"]

    def compacted() -> bool:
        produce(kafka.address, topic, [(b"same", b"value", [])])
        found = consume_all(kafka.address, topic)
        return len(found) < (found[-1].offset() or 0)

    wait_until(compacted, 90, "a hole in the topic")
    with TopicReader(at(kafka.address)) as reader:
        reader.discover([topic])
        keys = to_end(reader)
        assert set(keys) == {b"same"}
        assert len(keys) < reader.positions.next[topic, 0]


@pytest.mark.parametrize(
    ("start", "first"),
    [
        ("beginning", b"0"),
        (datetime(2020, 1, 1, tzinfo=UTC), b"0"),
        ({}, b"0"),
        ("end", b"later0"),
        (datetime.now(UTC) + timedelta(days=1), b"later0"),
    ],
    ids=["beginning", "time", "no offset", "end", "later time"],
)
def test_it_begins_where_it_is_told(kafka: Broker, topics: Topics, start: Start, first: bytes) -> None:
    topic = topics({"t": 1})["t"]
    produce(kafka.address, topic, records(5))
    with TopicReader(at(kafka.address)) as reader:
        reader.discover([topic], start)
        produce(kafka.address, topic, records(1, "later"))
        assert one_more(reader) == first


def test_it_begins_at_given_offsets_and_ends_where_it_is_told(kafka: Broker, topics: Topics) -> None:
    topic = topics({"t": 1})["t"]
    produce(kafka.address, topic, records(5))
    with TopicReader(at(kafka.address)) as reader:
        reader.discover([topic], {(topic, 0): 3})
        assert to_end(reader) == [b"3", b"4"]
    with TopicReader(at(kafka.address)) as reader:
        reader.assign({(topic, 0): Watermarks(1, 2)})
        assert one_more(reader) == b"1"
        assert reader.positions.caught_up()


def test_partitions_that_are_added_while_it_follows_are_read_from_their_beginning(
    kafka: Broker, topics: Topics
) -> None:
    topic = topics({"t": 1})["t"]
    produce(kafka.address, topic, records(2))
    with TopicReader(at(kafka.address)) as reader:
        reader.discover([topic], "end")
        admin = AdminClient({"bootstrap.servers": kafka.address})
        admin.create_partitions([NewPartitions(topic, 2)])[topic].result(SECONDS)
        produce(kafka.address, topic, records(1, "new"), 1)

        def grown() -> bool:
            reader.discover([topic])
            return (topic, 1) in reader.positions.next

        wait_until(grown, SECONDS, "the new partition")
        assert one_more(reader) == b"new0"
        # What was assigned already stays where it was.
        assert reader.positions.next[topic, 0] == 2


def test_a_topic_that_is_not_there_is_named(kafka: Broker) -> None:
    with TopicReader(at(kafka.address)) as reader, pytest.raises(TopicMissing, match="topic no-such-topic does not"):
        reader.discover(["no-such-topic"])


def test_a_topic_that_is_not_there_may_come_later(kafka: Broker) -> None:
    topic = unique("later")
    with TopicReader(at(kafka.address), optional=[topic]) as reader:
        reader.discover([topic])
        assert reader.positions.caught_up()
        create_topics(kafka.address, {topic: 1})
        produce(kafka.address, topic, records(1))
        wait_until(lambda: reader.discover([topic]) or reader.positions.next, SECONDS, "the topic")
        assert one_more(reader) == b"0"


def test_a_start_that_is_not_on_the_broker_is_lost(kafka: Broker, topics: Topics) -> None:
    topic = topics({"t": 1})["t"]
    produce(kafka.address, topic, records(3))
    with TopicReader(at(kafka.address), lost) as reader:
        with pytest.raises(MemoryLost, match=rf"^{topic}:0 has offsets 0 to 3, not 99: lost$"):
            reader.discover([topic], {(topic, 0): 99})
        # Nothing is assigned then.
        assert reader.positions.next == {}


def test_a_start_that_is_not_on_the_broker_is_the_beginning_where_nobody_says_otherwise(
    kafka: Broker, topics: Topics
) -> None:
    topic = topics({"t": 1})["t"]
    produce(kafka.address, topic, records(3))
    with TopicReader(at(kafka.address)) as reader:
        reader.discover([topic], {(topic, 0): 99})
        assert one_more(reader) == b"0"


def test_an_offset_that_is_gone_is_lost_after_what_came_with_the_news(kafka: Broker, topics: Topics) -> None:
    # Given two partitions, one of which is another one now
    topic = topics({"t": 2})["t"]
    for partition in (0, 1):
        produce(kafka.address, topic, records(5), partition)
    with TopicReader(at(kafka.address), lost) as reader:
        reader.assign({(topic, 0): Watermarks(99, 100), (topic, 1): Watermarks(0, 5)})
        seen: list[int | None] = []

        def step() -> None:
            seen.extend(message.partition() for message in reader.read(500, 0.5, fill=0.5).messages)

        # Then the other is read, and the error names the offset
        with pytest.raises(MemoryLost, match=rf"^{topic}:0 has other offsets \(.*out of range.*\), not 99: lost$"):
            wait_until(step, SECONDS, "an error")
        assert set(seen) <= {1}


def test_an_offset_that_is_gone_is_passed_over_where_nobody_says_otherwise(kafka: Broker, topics: Topics) -> None:
    topic = topics({"t": 1})["t"]
    produce(kafka.address, topic, records(5))
    admin = AdminClient({"bootstrap.servers": kafka.address})
    admin.delete_records([TopicPartition(topic, 0, 3)])[TopicPartition(topic, 0)].result(SECONDS)
    with TopicReader(at(kafka.address)) as reader:
        reader.assign({(topic, 0): Watermarks(0, 5)})
        assert to_end(reader) == [b"3", b"4"]


# Faults


def test_it_goes_on_after_what_librdkafka_recovers_from(mock_kafka: MockCluster) -> None:
    mock_kafka.topic("t", 1)
    produce(mock_kafka.address, "t", records(1))
    with TopicReader(at(mock_kafka.address)) as reader:
        reader.discover(["t"])
        mock_kafka.fail(1, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.REPLICA_NOT_AVAILABLE)
        assert to_end(reader) == [b"0"]
        mock_kafka.down()
        assert reader.read(1, 0.2).messages == ()
        mock_kafka.up()
        produce(mock_kafka.address, "t", records(1, "later"))
        assert one_more(reader) == b"later0"


def test_without_a_broker_nothing_is_assigned(mock_kafka: MockCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tagbus.stream.kafka.metadata.ASK_SECONDS", 0.2)
    mock_kafka.topic("t", 1)
    mock_kafka.down()
    with TopicReader(at(mock_kafka.address)) as reader:
        with pytest.raises(DependencyDown, match="no broker answered for topic t"):
            reader.discover(["t"])
        assert reader.positions.next == {}


# By asyncio


async def test_a_follower_looks_for_what_is_added_and_outlasts_a_broker_that_is_away(
    mock_kafka: MockCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tagbus.stream.kafka.follower.GROWTH_SECONDS", 0.0)
    monkeypatch.setattr("tagbus.stream.kafka.metadata.ASK_SECONDS", 0.5)
    reader = TopicReader(at(mock_kafka.address), optional=["t"])
    async with TopicFollower(reader, ["t"]) as following:
        assert following.positions.next == {}
        mock_kafka.down()
        while "no broker answered for topic t" not in caplog.text:
            await following.read(1, 0.1)
        mock_kafka.up()
        mock_kafka.topic("t", 1)
        produce(mock_kafka.address, "t", records(1))
        while not (chunk := await following.read(1, 0.1)).messages:
            pass
        assert chunk.positions.next["t", 0] == 1


async def test_a_follower_that_cannot_begin_leaves_nothing_open(mock_kafka: MockCluster) -> None:
    reader = TopicReader(at(mock_kafka.address))
    mock_kafka.topic("t", 1)
    with pytest.raises(TopicMissing):
        async with TopicFollower(reader, ["t", "not there"]):
            raise AssertionError("it began")
    with pytest.raises(RuntimeError, match="closed"):
        reader.read(1, 0.0)
