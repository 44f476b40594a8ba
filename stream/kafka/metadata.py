"""Topic metadata: partitions, watermarks, and offsets by time.

Each function takes the client to use. They raise the errors of `errors.classify`, and DependencyDown if no broker
answers.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from tagbus.stream.config import KafkaSettings
from tagbus.stream.errors import DependencyDown, TopicMissing
from tagbus.stream.kafka.access import failure
from tagbus.stream.kafka.errors import NO_TOPIC, RAISED, classify, error_of
from tagbus.stream.kafka.message import Partition
from tagbus.stream.kafka.rights import Operation

# Timeout of a request.
ASK_SECONDS = 10.0
# Interval of retries for a partition whose leader the client does not know yet.
MOVING_SECONDS = 0.1
_MOVING = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})


class Watermarks(NamedTuple):
    """The first offset of a partition and the next one to be written. For a read_committed client a partition ends
    before its first open transaction."""

    low: int
    high: int


def list_partitions(
    client: Consumer | Producer,
    kafka: KafkaSettings,
    topic: str,
    operation: Operation = "Read",
    seconds: float | None = None,
) -> list[Partition]:
    """All partitions of a topic, in order. `operation` is the intended use: the message for a missing right names it.

    Raises TopicMissing, and UserError also if no broker accepts the credentials.
    """
    try:
        found = client.list_topics(topic, seconds or ASK_SECONDS).topics[topic]
    except RAISED as raised:
        raise failure(raised, kafka, f"no broker answered for topic {topic}", topic, operation) from None
    if found.error is not None:
        raise failure(found.error, kafka, f"topic {topic} cannot be used", topic, operation)
    if not found.partitions:
        raise TopicMissing(topic)
    return [(topic, number) for number in sorted(found.partitions)]


def cluster_id(client: Consumer, kafka: KafkaSettings) -> str:
    """The id of the cluster, assigned when the cluster was created."""
    try:
        return str(client.list_topics(timeout=ASK_SECONDS).cluster_id)
    except RAISED as raised:
        raise failure(raised, kafka, "no broker answered for the cluster's id", "", "Describe") from None


def identities(client: AdminClient, kafka: KafkaSettings, topics: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The ids of the cluster and of those topics that exist: a topic that is created again has another one.

    The topics' ids are empty where no broker is the controller, as in librdkafka's mock cluster: it would wait for one.
    """
    try:
        found = client.list_topics(topics[0], ASK_SECONDS)
    except RAISED as raised:
        raise failure(raised, kafka, "no broker answered for the cluster's id", topics[0]) from None
    if found.controller_id not in found.brokers:
        return str(found.cluster_id), dict.fromkeys(topics, "")
    ids: dict[str, str] = {}
    asked = client.describe_topics(TopicCollection(list(topics)), request_timeout=ASK_SECONDS)
    for topic, described in asked.items():
        try:
            ids[topic] = str(described.result().topic_id)
        except RAISED as raised:
            if error_of(raised).code() not in NO_TOPIC:
                raise failure(raised, kafka, f"no broker answered for topic {topic}", topic) from None
    return str(found.cluster_id), ids


def watermarks(
    client: Consumer, kafka: KafkaSettings, partition: Partition, seconds: float | None = None
) -> Watermarks:
    """The current watermarks of a partition."""
    with _answered(client, kafka, partition):
        found = _of_the_leader(client, TopicPartition(*partition), seconds or ASK_SECONDS)
    # The client reports a timeout as None.
    if found is None:
        raise _silent(partition, "timed out")
    return Watermarks(*found)


def offset_at(
    client: Consumer, kafka: KafkaSettings, partition: Partition, moment: datetime, seconds: float | None = None
) -> int:
    """The offset of the first record at or after a time; the end of the partition if there is none."""
    asked = TopicPartition(*partition, max(0, int(moment.timestamp() * 1000)))
    with _answered(client, kafka, partition):
        (found,) = client.offsets_for_times([asked], seconds or ASK_SECONDS)
        if found.error is not None:
            raise KafkaException(found.error)
    return int(found.offset) if found.offset >= 0 else watermarks(client, kafka, partition, seconds).high


def _of_the_leader(client: Consumer, partition: TopicPartition, seconds: float) -> tuple[int, int] | None:
    """The leader's answer. Retries while the client does not know the leader: its metadata of a just created topic may
    be stale, and the client does not retry this call."""
    until = time.monotonic() + seconds
    while True:
        try:
            return client.get_watermark_offsets(partition, seconds)
        except KafkaException as exception:
            if error_of(exception).code() not in _MOVING or time.monotonic() >= until:
                raise
        time.sleep(MOVING_SECONDS)


@contextmanager
def _answered(client: Consumer, kafka: KafkaSettings, partition: Partition) -> Iterator[None]:
    try:
        yield
    except RAISED as raised:
        error = error_of(raised)
        # librdkafka also reports this for a partition whose leader it has lost.
        if error.code() == KafkaError._UNKNOWN_PARTITION and partition in list_partitions(client, kafka, partition[0]):
            raise _silent(partition, "its leader is not known") from None
        raise classify(error, kafka, partition[0]) or _silent(partition, error.str()) from None


def _silent(partition: Partition, reason: str) -> DependencyDown:
    return DependencyDown(f"no broker returns the watermarks of {partition[0]}:{partition[1]}: {reason}")
