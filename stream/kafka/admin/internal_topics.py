"""The topics that brokers keep for groups and transactions. They make them at the first use, and where there are fewer
brokers than replicas they never do: clients wait for a coordinator for ever, without an error."""

from collections.abc import Sequence
from typing import Final

from confluent_kafka.admin._metadata import ClusterMetadata

from tagbus.stream.config import KafkaSettings
from tagbus.stream.kafka.admin.layout import Configuration

# By topic: the setting of the brokers that says how many replicas it gets, and what is not served without it.
_GROUPS: Final = ("__consumer_offsets", "offsets.topic.replication.factor", "consumer group")
_TRANSACTIONS: Final = ("__transaction_state", "transaction.state.log.replication.factor", "transaction")


def not_served(kafka: KafkaSettings, cluster: ClusterMetadata, broker: Configuration) -> Sequence[str]:
    """What this cluster cannot do for a worker, in words; `broker` has the settings of one of its brokers."""
    needed = (_GROUPS, _TRANSACTIONS) if kafka.delivery == "exactly_once" else (_GROUPS,)
    count = len(cluster.brokers)
    return [
        f"{setting} is {replicas}, more than the {count} brokers there are: no {served} is served"
        for topic, setting, served in needed
        if topic not in cluster.topics and (replicas := broker.get(setting, "")).isdigit() and int(replicas) > count
    ]
