"""Partitions that nobody can read or write now."""

from collections.abc import Sequence

from confluent_kafka.admin._metadata import TopicMetadata

from tagbus.stream.kafka.admin.layout import Configuration

IN_SYNC = "min.insync.replicas"
# Partitions named at most.
NAMED = 5


def unavailable(topic: TopicMetadata, configuration: Configuration | None) -> list[str]:
    """Why partitions of a topic cannot be read or written now, in words. `configuration`: the topic's, if disclosed."""
    found = []
    partitions = sorted(topic.partitions.values(), key=lambda partition: partition.id)
    if away := [partition.id for partition in partitions if partition.leader < 0]:
        found.append(f"no leader for {_named(away)}: nothing is read or written there until a broker is back")
    least = (configuration or {}).get(IN_SYNC, "")
    needed = int(least) if least.isdigit() else 0
    # Brokers from 4.0 on ask for no more than there are.
    few = [
        partition.id
        for partition in partitions
        if partition.leader >= 0 and len(partition.isrs) < min(needed, len(partition.replicas))
    ]
    if few:
        found.append(f"fewer replicas in sync than {IN_SYNC} = {needed} for {_named(few)}: nothing is written there")
    return found


def _named(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    return f"partition{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers[:NAMED]))}{more}"
