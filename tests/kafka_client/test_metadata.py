"""What a client that has lost its brokers says about a topic."""

from collections.abc import Iterator

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, KafkaException

from tagbus.stream.config import KafkaSettings
from tagbus.stream.errors import DependencyDown, TopicMissing
from tagbus.stream.kafka.metadata import watermarks
from tagbus.stream.local.mock import MockCluster

# The key of its request in Kafka's protocol.
LIST_OFFSETS = 2


class Leaderless(confluent_kafka.Consumer):
    """As librdkafka is while brokers go away: it forgets which partitions there are."""

    def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
        raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))


@pytest.fixture
def client(mock_kafka: MockCluster) -> Iterator[Leaderless]:
    mock_kafka.topic("content", 2)
    made = Leaderless({"bootstrap.servers": mock_kafka.address, "group.id": "g"})
    yield made
    made.close()


@pytest.fixture
def kafka(mock_kafka: MockCluster) -> KafkaSettings:
    return KafkaSettings(brokers=mock_kafka.address)


def test_a_partition_without_a_leader_is_a_dependency_that_is_down(client: Leaderless, kafka: KafkaSettings) -> None:
    with pytest.raises(DependencyDown, match="no broker returns the watermarks of content:1"):
        watermarks(client, kafka, ("content", 1))


def test_one_that_is_not_there_is_missing(client: Leaderless, kafka: KafkaSettings) -> None:
    with pytest.raises(TopicMissing, match="topic content does not exist"):
        watermarks(client, kafka, ("content", 2))
    with pytest.raises(TopicMissing, match="topic elsewhere does not exist"):
        watermarks(client, kafka, ("elsewhere", 0))


def test_a_partition_whose_leader_moves_is_asked_for_again(mock_kafka: MockCluster, kafka: KafkaSettings) -> None:
    mock_kafka.topic("content", 1)
    mock_kafka.fail(LIST_OFFSETS, *[KafkaError.NOT_LEADER_FOR_PARTITION] * 3)
    client = confluent_kafka.Consumer({"bootstrap.servers": mock_kafka.address, "group.id": "g"})
    try:
        assert watermarks(client, kafka, ("content", 0)) == (0, 0)
    finally:
        client.close()
