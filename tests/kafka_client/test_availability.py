"""Partitions that nobody can read or write now: brokers that are away, replicas that are not in sync."""

from collections.abc import Sequence

import pytest
from confluent_kafka.admin._metadata import PartitionMetadata, TopicMetadata

from tagbus.stream.kafka.admin.availability import unavailable

LEAST = "min.insync.replicas"


def topic(*partitions: tuple[int, Sequence[int], Sequence[int]]) -> TopicMetadata:
    """A topic whose partitions have this leader, these replicas and those in sync."""
    found = TopicMetadata()
    for number, (leader, replicas, in_sync) in enumerate(partitions):
        partition = PartitionMetadata()
        partition.id, partition.leader, partition.replicas, partition.isrs = number, leader, replicas, in_sync
        found.partitions[number] = partition
    return found


@pytest.mark.parametrize("configuration", [{LEAST: "2"}, {}, None])
def test_a_topic_with_leaders_and_replicas_is_available(configuration: dict[str, str] | None) -> None:
    assert unavailable(topic((1, [1, 2, 3], [1, 2]), (2, [2, 3, 1], [2, 3, 1])), configuration) == []


def test_partitions_without_a_leader_are_named() -> None:
    away = (-1, [3], [3])
    assert unavailable(topic(away, (1, [1], [1]), away), {LEAST: "1"}) == [
        "no leader for partitions 0, 2: nothing is read or written there until a broker is back"
    ]
    (words,) = unavailable(topic(*[away] * 200), None)
    assert words.startswith("no leader for partitions 0, 1, 2, 3, 4 and 195 more: ")


def test_too_few_replicas_in_sync_are_named() -> None:
    few = topic((1, [1, 2, 3], [1]), (2, [2, 3, 1], [2, 3]))
    assert unavailable(few, {LEAST: "2"}) == [
        "fewer replicas in sync than min.insync.replicas = 2 for partition 0: nothing is written there"
    ]
    assert unavailable(few, None) == []


def test_a_topic_with_fewer_replicas_than_must_be_in_sync_is_written() -> None:
    # Brokers from 4.0 on count the replicas then.
    assert unavailable(topic((1, [1], [1])), {LEAST: "2"}) == []
