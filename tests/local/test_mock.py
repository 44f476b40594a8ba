"""librdkafka's mock cluster: what the demo relies on, and what its docstring says that it cannot do."""

import os
import socket
from functools import partial

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from tagbus.stream.errors import UserError
from tagbus.stream.local.mock import PARTITIONS, MockCluster
from tests.support import consume_all, produce, unique, wait_until

# Both protocols of groups. The mock cluster lets a change of members wait for the classic session's timeout.
CLASSIC: dict[str, str | int] = {"session.timeout.ms": 2000, "heartbeat.interval.ms": 200}
KIP_848: dict[str, str | int] = {"group.protocol": "consumer"}


def group_of(address: str, group: str, protocol: dict[str, str | int]) -> Consumer:
    return Consumer({"bootstrap.servers": address, "group.id": group, "auto.offset.reset": "earliest", **protocol})


def test_keys_values_and_headers_come_back_as_they_were_sent(mock_kafka: MockCluster) -> None:
    mock_kafka.topic("content", 1)
    headers = [("ce_id", b"1"), ("ce_id", b"\x00\xff"), ("empty", b"")]

    produce(mock_kafka.address, "content", [(b"k", b"\x00value", headers), (b"gone", None, [])])

    first, tombstone = consume_all(mock_kafka.address, "content")
    assert (first.key(), first.value(), first.headers()) == (b"k", b"\x00value", headers)
    assert (tombstone.key(), tombstone.value()) == (b"gone", None)


@pytest.mark.parametrize("protocol", [CLASSIC, KIP_848], ids=["classic", "KIP-848"])
def test_a_group_goes_on_where_it_committed(mock_kafka: MockCluster, protocol: dict[str, str | int]) -> None:
    mock_kafka.topic("content", 2)
    produce(mock_kafka.address, "content", [(b"%d" % n, b"%d" % n, []) for n in range(100)])

    seen: list[bytes | None] = []
    for count in (60, 40):
        consumer = group_of(mock_kafka.address, "workers", protocol)
        consumer.subscribe(["content"])
        while count:
            messages = consumer.consume(count, 10)
            assert messages, "a group member got nothing within 10 s"
            assert not [message.error() for message in messages if message.error()]
            seen += [message.value() for message in messages]
            count -= len(messages)
        consumer.commit(asynchronous=False)
        consumer.close()

    assert sorted(int(value or b"") for value in seen) == list(range(100))


def test_topics_have_the_partitions_asked_for_and_four_by_first_use(mock_kafka: MockCluster) -> None:
    mock_kafka.topic("tags", 7)
    produce(mock_kafka.address, "by.first.use", [(b"k", b"v", [])])

    topics = Producer({"bootstrap.servers": mock_kafka.address}).list_topics(timeout=60).topics

    assert {name: len(topic.partitions) for name, topic in topics.items()} == {"tags": 7, "by.first.use": PARTITIONS}


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ü", "x" * 250, "%s\x00"])
def test_a_name_that_kafka_would_refuse_is_refused_with_what_would_be_right(mock_kafka: MockCluster, name: str) -> None:
    with pytest.raises(UserError, match="expected 1 to 249 of the characters"):
        mock_kafka.topic(name)


def test_a_topic_that_is_there_and_a_count_that_is_none_are_refused(mock_kafka: MockCluster) -> None:
    mock_kafka.topic("content")
    with pytest.raises(UserError, match="content already exists"):
        mock_kafka.topic("content")
    with pytest.raises(UserError, match="0 partitions, expected 1 to 1000"):
        mock_kafka.topic("other", 0)


def test_a_partition_keeps_its_last_five_mebibytes(mock_kafka: MockCluster) -> None:
    mock_kafka.topic("content", 1)

    produce(mock_kafka.address, "content", [(None, os.urandom(100_000), []) for _ in range(100)])

    kept = consume_all(mock_kafka.address, "content")
    assert 4_500_000 < sum(len(message.value() or b"") for message in kept) <= 5 * 1024 * 1024
    assert kept[-1].offset() == 99


def test_aborted_records_are_visible_so_it_is_at_least_once_only(mock_kafka: MockCluster) -> None:
    mock_kafka.topic("tagged", 1)
    producer = Producer({"bootstrap.servers": mock_kafka.address, "transactional.id": unique("t")})
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce("tagged", b"aborted")
    producer.flush(10)
    producer.abort_transaction(10)

    assert [message.value() for message in consume_all(mock_kafka.address, "tagged")] == [b"aborted"]


def test_a_broker_that_went_away_takes_what_was_queued_when_it_is_back(mock_kafka: MockCluster) -> None:
    mock_kafka.topic("content", 1)
    produce(mock_kafka.address, "content", [(None, b"before", [])])
    producer = Producer({"bootstrap.servers": mock_kafka.address, "reconnect.backoff.max.ms": 200, "log_level": 0})

    mock_kafka.down()
    with pytest.raises(KafkaException):
        producer.list_topics(timeout=0.5)
    producer.produce("content", b"while down")
    mock_kafka.up()

    wait_until(lambda: producer.flush(0.1) == 0, 120, "the record that was queued")
    assert [message.value() for message in consume_all(mock_kafka.address, "content")] == [b"before", b"while down"]


def test_injected_errors_reach_the_client(mock_kafka: MockCluster) -> None:
    mock_kafka.topic("content", 1)
    offset_commit = 8
    consumer = group_of(mock_kafka.address, "workers", CLASSIC)
    mock_kafka.fail(offset_commit, KafkaError.GROUP_AUTHORIZATION_FAILED)

    with pytest.raises(KafkaException) as refused:
        consumer.commit(offsets=[TopicPartition("content", 0, 1)], asynchronous=False)

    assert refused.value.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED
    consumer.close()


def test_it_listens_on_the_loopback_only_and_closes_for_good() -> None:
    with MockCluster() as cluster:
        host, _, port = cluster.address.partition(":")
        assert host == "127.0.0.1"
    cluster.close()

    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, int(port)), timeout=5)
    with pytest.raises(UserError, match="closed"):
        cluster.topic("content")


def test_of_two_brokers_one_goes_away_and_a_group_follows_its_coordinator() -> None:
    with MockCluster(brokers=2) as cluster:
        cluster.topic("content", 1)
        cluster.coordinator("group", "workers", 2)
        produce(cluster.address, "content", [(b"k", b"v", [])])
        cluster.down(2)
        consumer = group_of(cluster.address, "workers", KIP_848)
        with pytest.raises(KafkaException, match=r"_TIMED_OUT|_WAIT_COORD|_TRANSPORT"):
            consumer.committed([TopicPartition("content", 0)], timeout=1)
        cluster.coordinator("group", "workers", 1)
        assert wait_until(partial(_asked, consumer), 120, "the other coordinator")
        consumer.close()


def _asked(consumer: Consumer) -> bool:
    try:
        return consumer.committed([TopicPartition("content", 0)], timeout=1)[0].error is None
    except KafkaException:
        return False
