"""Detect hanging transactions. A read_committed reader sees nothing after the first record of an open transaction, so a
hanging producer, or a broker that has lost the end of a transaction, stops it without an error (KIP-664)."""

import time
from collections.abc import Iterable, Mapping
from typing import Final

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.admin._metadata import ClusterMetadata

# A transaction that is still the first open one after this time is not one of the regular short ones.
PATIENCE_SECONDS: Final = 3.0

# The offset of the first record of an open transaction, by topic and partition.
Offsets = Mapping[tuple[str, int], int]


def held_back(admin: AdminClient, cluster: ClusterMetadata, names: Iterable[str], seconds: float) -> Offsets:
    """The start of the open transaction in each partition of these topics that one has blocked for PATIENCE_SECONDS.
    Partitions that no broker answers for are left out."""
    partitions = [
        (name, number) for name in names if name in cluster.topics for number in cluster.topics[name].partitions
    ]
    found = _held(admin, partitions, seconds)
    if not found:
        return found
    time.sleep(PATIENCE_SECONDS)
    later = _held(admin, list(found), seconds)
    return {partition: offset for partition, offset in found.items() if later.get(partition) == offset}


def _held(admin: AdminClient, partitions: list[tuple[str, int]], seconds: float) -> Offsets:
    # In this order, so that records written in between do not look like an open transaction.
    ends = _ends(admin, partitions, IsolationLevel.READ_UNCOMMITTED, seconds)
    stable = _ends(admin, partitions, IsolationLevel.READ_COMMITTED, seconds)
    return {
        partition: stable[partition] for partition in ends if stable.get(partition, ends[partition]) < ends[partition]
    }


def _ends(admin: AdminClient, partitions: list[tuple[str, int]], level: IsolationLevel, seconds: float) -> Offsets:
    if not partitions:
        return {}
    latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    asked = {TopicPartition(*partition): latest for partition in partitions}
    found: dict[tuple[str, int], int] = {}
    for one, future in admin.list_offsets(asked, isolation_level=level, request_timeout=seconds).items():
        try:
            found[one.topic, one.partition] = future.result(seconds).offset
        except (KafkaException, TimeoutError):
            continue
    return found
