"""The brokers' internal topics for groups and transactions. Brokers create them on first use, but never if they require
more replicas than there are brokers: clients then wait forever for a coordinator, without an error."""

from collections.abc import Sequence
from typing import Final

from confluent_kafka.admin._metadata import ClusterMetadata

from tagbus.stream.config import KafkaSettings
from tagbus.stream.kafka.admin.layout import Configuration

# By topic: the broker setting for its number of replicas, and the feature that needs it.
_GROUPS: Final = ("__consumer_offsets", "offsets.topic.replication.factor", "consumer group")
_TRANSACTIONS: Final = ("__transaction_state", "transaction.state.log.replication.factor", "transaction")


def not_served(kafka: KafkaSettings, cluster: ClusterMetadata, broker: Configuration) -> Sequence[str]:
    """The features that this cluster cannot serve, in words; `broker`: the settings of one of its brokers."""
    needed = (_GROUPS, _TRANSACTIONS) if kafka.delivery == "exactly_once" else (_GROUPS,)
    count = len(cluster.brokers)
    return [
        f"{setting} is {replicas}, more than the {count} brokers there are: no {served} is served"
        for topic, setting, served in needed
        if topic not in cluster.topics and (replicas := broker.get(setting, "")).isdigit() and int(replicas) > count
    ]
