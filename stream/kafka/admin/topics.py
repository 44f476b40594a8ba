"""Inspect, create and change topics on the brokers. Inspecting creates none."""

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._metadata import ClusterMetadata
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewPartitions, NewTopic

from tagbus.stream.config import KafkaSettings, Settings
from tagbus.stream.errors import DependencyDown, UserError
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.access import LISTEN_SECONDS, failure
from tagbus.stream.kafka.admin.layout import COMPACT, POLICY, Configuration, TopicState, Wanted, compacted
from tagbus.stream.kafka.errors import classify, error_of
from tagbus.stream.kafka.logs import log
from tagbus.stream.kafka.metadata import list_partitions, watermarks
from tagbus.stream.kafka.rights import REFUSED

# How long brokers may take to create or change a topic, and to list it.
SECONDS: Final = 30.0


def states(admin: AdminClient, cluster: ClusterMetadata, names: Iterable[str], seconds: float) -> dict[str, TopicState]:
    """The existing topics among these. `cluster` lists all topics: a metadata request for one name could create it."""
    there = [name for name in names if name in cluster.topics and cluster.topics[name].partitions]
    resources = {name: ConfigResource(ResourceType.TOPIC, name) for name in there}
    known = configurations(admin, cluster, list(resources.values()), seconds)
    return {
        name: TopicState(
            len(cluster.topics[name].partitions),
            min(len(partition.replicas) for partition in cluster.topics[name].partitions.values()),
            known.get(resources[name]),
        )
        for name in there
    }


def configurations(
    admin: AdminClient, cluster: ClusterMetadata, resources: Sequence[ConfigResource], seconds: float
) -> dict[ConfigResource, Configuration]:
    """The settings of brokers and topics; those that the cluster does not disclose are omitted."""
    known: dict[ConfigResource, Configuration] = {}
    # librdkafka waits for a controller first, and its mock cluster names one that does not exist.
    if not resources or cluster.controller_id not in cluster.brokers:
        return known
    futures: dict[ConfigResource, Future[dict[str, ConfigEntry]]] = admin.describe_configs(
        list(resources), request_timeout=seconds
    )
    for resource, future in futures.items():
        with suppress(KafkaException, TimeoutError):
            known[resource] = {name: str(entry.value) for name, entry in future.result(seconds).items()}
    return known


def require_compacted(given: Sequence[Settings]) -> None:
    """Raise UserError for a topic that must be compacted, because every worker needs the last record of each key, but
    is kept by time. Logs a warning if the cluster does not disclose it or no broker answers."""
    kafka = given[0].kafka
    names = list(dict.fromkeys(name for settings in given for name in compacted(settings)))
    admin = clients.quiet_admin(kafka, lambda _: None)
    try:
        found = states(admin, admin.list_topics(timeout=LISTEN_SECONDS), names, LISTEN_SECONDS)
    except KafkaException as error:
        log.warning("topics: %s", error_of(error).str())
        return
    if unsure := [name for name, state in found.items() if state.configuration is None]:
        log.warning(
            "topics: unsure whether %s keep the last record of each key: not disclosed (DescribeConfigs)",
            ", ".join(unsure),
        )
    for name, state in found.items():
        if state.configuration is not None and (policy := state.configuration.get(POLICY)) != COMPACT:
            raise UserError(
                f"topic {name}: {POLICY} is {policy}, expected {COMPACT}, or its records are deleted after a while; "
                "`tagbus topics create --mend` changes it"
            )


def create(admin: AdminClient, kafka: KafkaSettings, wanted: Mapping[str, Wanted]) -> list[str]:
    """Create topics; returns those that did not exist. Raises UserError, DependencyDown."""
    new = [
        NewTopic(name, one.partitions, one.replication, config=dict(one.configuration)) for name, one in wanted.items()
    ]
    created = []
    for name, future in admin.create_topics(new, request_timeout=SECONDS).items():
        try:
            future.result()
            created.append(name)
        except KafkaException as error:
            if error_of(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise failure(error, kafka, f"topic {name} was not created", name, "Create") from None
    for name in wanted:
        _wait_until_shown(kafka, admin, name)
    return created


def add_partitions(admin: AdminClient, kafka: KafkaSettings, name: str, total: int) -> None:
    """Add partitions to a topic, up to `total`. Raises UserError, DependencyDown."""
    futures: dict[str, Future[None]] = admin.create_partitions([NewPartitions(name, total)], request_timeout=SECONDS)
    try:
        futures[name].result()
    except KafkaException as error:
        raise failure(error, kafka, f"topic {name} got no partitions", name, "Alter") from None


def configure(admin: AdminClient, kafka: KafkaSettings, name: str, settings: Configuration) -> None:
    """Change some settings of a topic; all others stay. Raises UserError, DependencyDown."""
    entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in settings.items()]
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
    futures: dict[ConfigResource, Future[None]] = admin.incremental_alter_configs([resource], request_timeout=SECONDS)
    try:
        futures[resource].result()
    except KafkaException as error:
        raise failure(error, kafka, f"topic {name} was not changed", name, "AlterConfigs") from None


def empty(kafka: KafkaSettings, name: str) -> bool:
    """Whether a topic holds no records, uncommitted ones included. Raises UserError, DependencyDown."""
    client = clients.reader(kafka, isolation="read_uncommitted")
    try:
        marks = [watermarks(client, kafka, partition) for partition in list_partitions(client, kafka, name)]
    finally:
        client.close()
    return all(low == high for low, high in marks)


def _wait_until_shown(kafka: KafkaSettings, admin: AdminClient, name: str) -> None:
    """Wait until the broker lists a topic, some milliseconds after confirming its creation. Raises UserError,
    DependencyDown."""
    deadline = time.monotonic() + SECONDS
    try:
        while error := admin.list_topics(name, SECONDS).topics[name].error:
            if error.code() in REFUSED and (refused := classify(error, kafka, name, "Describe")):
                raise refused
            if time.monotonic() > deadline:
                raise DependencyDown(f"topic {name} is not listed within {SECONDS:.0f} s of its creation")
            time.sleep(0.05)
    except KafkaException as error:
        raise DependencyDown(f"the topics were created, but: {error_of(error).str()}") from None
