"""Access checks against the broker: missing rights, and why no broker accepts the connection."""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import get_args

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin._acl import AclOperation
from confluent_kafka.admin._topic import TopicDescription

from tagbus.stream.config import KafkaSettings
from tagbus.stream.errors import DependencyDown, TagbusError, UserError
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.errors import NO_BROKER, classify, error_of
from tagbus.stream.kafka.rights import AUTHENTICATION, Operation, handshake, principal, rejected

# How long to listen to a new client. A failed login is reported after 0.3 s on an idle machine.
LISTEN_SECONDS = 3.0
# How long a group may take to answer: the first one in a cluster has its coordinator's topic created.
COORDINATOR_SECONDS = 30.0

# Invalid settings of a topic or a record, which no retry fixes.
_INVALID = frozenset(
    {
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.INVALID_CONFIG,
        KafkaError.POLICY_VIOLATION,
        KafkaError.MSG_SIZE_TOO_LARGE,
    }
)
_NAMES: dict[AclOperation, Operation] = {
    AclOperation.READ: "Read",
    AclOperation.WRITE: "Write",
    AclOperation.DESCRIBE: "Describe",
    AclOperation.CREATE: "Create",
    AclOperation.ALTER: "Alter",
    AclOperation.ALTER_CONFIGS: "AlterConfigs",
}


def failure(raised: object, kafka: KafkaSettings, doing: str, topic: str, operation: Operation = "Read") -> TagbusError:
    """The error to raise for a call that is not retried: that of `classify`, UserError for an invalid topic setting or
    rejected credentials, else DependencyDown. `doing`: the prefix of a message made here."""
    error = error_of(raised)
    if error.code() in _INVALID:
        return UserError(f"{doing}: {error.str()}")
    if error.code() in NO_BROKER and (reason := why_locked_out(kafka)):
        return reason
    where = f" (kafka.brokers={kafka.brokers})" if error.code() in NO_BROKER else ""
    return classify(error, kafka, topic, operation) or DependencyDown(f"{doing}: {error.str()}{where}")


def missing_rights(kafka: KafkaSettings, needs: Sequence[tuple[Operation, str]]) -> UserError | None:
    """Check all rights on topics in one request (KIP-430), so that a missing right is found at startup, even one that
    only the first withdrawal needs.

    None if nothing is missing or the broker does not disclose it. Without security.protocol nothing is checked: every
    client is ANONYMOUS then, and librdkafka's mock cluster does not support the request.
    """
    if "security.protocol" not in kafka.options:
        return None
    client = clients.quiet_admin(kafka, lambda _: None)
    topics = TopicCollection(list(dict.fromkeys(topic for _, topic in needs)))
    asked = client.describe_topics(topics, include_authorized_operations=True, request_timeout=LISTEN_SECONDS)
    allowed = {topic: _allowed(future) for topic, future in asked.items()}
    missing = [(operation, topic) for operation, topic in needs if operation not in allowed[topic]]
    if not missing:
        return None
    rights = ", ".join(f"{operation} on topic {topic}" for operation, topic in missing)
    return UserError(f"Kafka refuses {principal(kafka)}: grant {rights} (TOPIC_AUTHORIZATION_FAILED)")


def missing_group_right(kafka: KafkaSettings, group: str) -> UserError | None:
    """Check the right to join a group, for a client that would otherwise try to join for ever.

    None where `missing_rights` returns None, and if the broker does not answer in time.
    """
    if "security.protocol" not in kafka.options:
        return None
    client = clients.quiet_admin(kafka, lambda _: None)
    asked = client.describe_consumer_groups(
        [group], include_authorized_operations=True, request_timeout=COORDINATOR_SECONDS
    )
    try:
        allowed = asked[group].result(COORDINATOR_SECONDS).authorized_operations
        if not allowed or AclOperation.READ in allowed:
            return None
    except TimeoutError:
        return None
    except KafkaException as exception:
        if error_of(exception).code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
            return None
    return UserError(f"Kafka refuses {principal(kafka)}: grant Read on group {group} (GROUP_AUTHORIZATION_FAILED)")


def inconsistent(kafka: KafkaSettings) -> UserError:
    """The error of a member that the group rejects because its other members support none of its assignors. The message
    names those members."""
    own = kafka.options.get("partition.assignment.strategy", clients.ASSIGNOR)
    others = "another assignor"
    client = clients.quiet_admin(kafka, lambda _: None)
    with suppress(KafkaException, TimeoutError):
        asked = client.describe_consumer_groups([kafka.group], request_timeout=LISTEN_SECONDS)
        found = asked[kafka.group].result(LISTEN_SECONDS)
        names = ", ".join(sorted(f"{member.client_id} at {member.host.lstrip('/')}" for member in found.members))
        others = f"the assignor {found.partition_assignor or 'of another name'} ({names})"
    return UserError(
        f"group {kafka.group} has members with {others}, and this worker has {own} (INCONSISTENT_GROUP_PROTOCOL): stop "
        "them, give the workers a kafka.group of their own, or set partition.assignment.strategy in kafka.options"
    )


def why_locked_out(kafka: KafkaSettings) -> UserError | None:
    """Why no broker accepts the credentials, or None if that is not the cause; checked when a call found no broker.

    The failing call reports `Broker transport failure` for a wrong password and an unknown certificate alike, and
    librdkafka passes the reason only to the error callback; so a new client connects and its errors are collected for
    some seconds.
    """
    if "security.protocol" not in kafka.options:
        return None
    reported: list[KafkaError] = []
    client = clients.quiet_admin(kafka, reported.append)
    end = time.monotonic() + LISTEN_SECONDS
    while time.monotonic() < end:
        try:
            client.list_topics(timeout=0.2)
            return None
        except KafkaException:
            client.poll(0)
        for error in reported:
            if error.code() in AUTHENTICATION:
                return UserError(rejected(error, kafka))
            if reason := handshake(error.str()):
                return UserError(f"{reason} ({error.str()})")
    return None


def _allowed(described: "Future[TopicDescription]") -> frozenset[str]:
    """The allowed operations on a topic; all of them if the broker does not say."""
    everything = frozenset(get_args(Operation))
    try:
        operations = described.result(LISTEN_SECONDS).authorized_operations
    except TimeoutError:
        return everything
    except KafkaException as exception:
        return frozenset() if error_of(exception).code() == KafkaError.TOPIC_AUTHORIZATION_FAILED else everything
    return frozenset(_NAMES[operation] for operation in operations if operation in _NAMES) or everything
