"""Why Kafka refuses this principal: the ACL that is missing, or what is wrong with its password or the certificates.

A refusal names the kind of resource and rarely the resource itself; a failed login is not told by the call at all.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Literal, get_args

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclOperation
from confluent_kafka.admin._topic import TopicDescription

from tagbus.stream.config import KafkaSettings
from tagbus.stream.errors import UserError

Operation = Literal["Read", "Write", "Describe", "Create"]

_AUTHENTICATION = frozenset(
    {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.UNSUPPORTED_SASL_MECHANISM}
)
_RIGHTS = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
REFUSED = _AUTHENTICATION | _RIGHTS
# What a call says where no broker answers, or where none lets this principal in.
NO_BROKER = frozenset({KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN})
_NAMES = {
    AclOperation.READ: "Read",
    AclOperation.WRITE: "Write",
    AclOperation.DESCRIBE: "Describe",
    AclOperation.CREATE: "Create",
}
# How long a new client is listened to. A failed login is told after 0.3 s, an idle machine provided.
LISTEN_SECONDS = 3.0


def transactional_id(kafka: KafkaSettings) -> str:
    """Prefix and instance, so that one prefixed ACL serves every worker."""
    return f"{kafka.transactional_id}-{kafka.instance}"


def refusal(error: KafkaError, kafka: KafkaSettings, topic: str, operation: Operation) -> str:
    """One line that says what to grant, or that the broker does not know who asks. `topic` and `operation`: what was
    asked for when the error came.

    Source: Kafka's authorization primitives, by protocol (documentation, Security, "Operations and Resources on
    Protocols").
    """
    if error.code() in _AUTHENTICATION:
        return _outside(kafka, error)
    right = _right(error.code(), kafka, topic, operation)
    return f"Kafka refuses {_principal(kafka)}: grant {right} ({error.name()})"


def denied(error: KafkaError, kafka: KafkaSettings, topic: str, operation: Operation = "Read") -> UserError | None:
    """The error to raise where Kafka refuses, None where the error says something else."""
    return UserError(refusal(error, kafka, topic, operation)) if error.code() in REFUSED else None


def lacking(kafka: KafkaSettings, needs: Sequence[tuple[Operation, str]]) -> UserError | None:
    """All that this principal may not do of what it `needs` to do with topics, asked of the broker at once (KIP-430):
    so a right that the first withdrawal would need is missed at the start.

    None where nothing is missing or the broker does not tell. Without security.protocol nobody is asked: all are
    ANONYMOUS then, and librdkafka's mock cluster does not know the question.
    """
    if "security.protocol" not in kafka.options:
        return None
    admin = _quiet(kafka, lambda _: None)
    topics = TopicCollection(list(dict.fromkeys(topic for _, topic in needs)))
    asked = admin.describe_topics(topics, include_authorized_operations=True, request_timeout=LISTEN_SECONDS)
    allowed = {topic: _allowed(future) for topic, future in asked.items()}
    missing = [(operation, topic) for operation, topic in needs if operation not in allowed[topic]]
    if not missing:
        return None
    rights = ", ".join(f"{operation} on topic {topic}" for operation, topic in missing)
    return UserError(f"Kafka refuses {_principal(kafka)}: grant {rights} (TOPIC_AUTHORIZATION_FAILED)")


def of_group(error: KafkaError) -> bool:
    """Whether a group is refused. A consumer in no group needs none: librdkafka looks for its coordinator all the
    same, and tells what came of it."""
    return bool(error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED)


def locked_out(kafka: KafkaSettings) -> UserError | None:
    """Why no broker lets this principal in, None where it is not that; asked when a call found no broker.

    The call that fails says `Broker transport failure` for a wrong password and for an unknown certificate alike, and
    librdkafka tells the reason to a callback alone; so a new client tries again and is listened to, some seconds.
    """
    if "security.protocol" not in kafka.options:
        return None
    told: list[KafkaError] = []
    admin = _quiet(kafka, told.append)
    end = time.monotonic() + LISTEN_SECONDS
    while time.monotonic() < end:
        try:
            admin.list_topics(timeout=0.2)
            return None
        except KafkaException:
            admin.poll(0)
        for error in told:
            if error.code() in _AUTHENTICATION:
                return UserError(_outside(kafka, error))
            if words := _tls(error.str()):
                return UserError(f"{words} ({error.str()})")
    return None


def _quiet(kafka: KafkaSettings, told: Callable[[KafkaError], None]) -> AdminClient:
    properties: dict[str, str | int | float | bool] = {**kafka.client(), "log_level": 0}
    return AdminClient(properties, error_cb=told)


def _allowed(described: "Future[TopicDescription]") -> frozenset[str]:
    """What may be done with a topic; all where that is not told."""
    try:
        operations = described.result(LISTEN_SECONDS).authorized_operations
    except TimeoutError:
        return frozenset(get_args(Operation))
    except KafkaException as exception:
        refused = exception.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
        return frozenset() if refused else frozenset(get_args(Operation))
    told = {_NAMES[operation] for operation in operations if operation in _NAMES}
    return frozenset(told or get_args(Operation))


def _outside(kafka: KafkaSettings, error: KafkaError) -> str:
    return (
        f"Kafka does not let {_principal(kafka)} in ({error.name()}): {error.str()}; "
        "see the security settings in kafka.options and kafka.secrets"
    )


def _tls(reason: str) -> str:
    """What to look at where the handshake failed; empty where it did not."""
    if "certificate verify failed" in reason:
        return (
            "the broker's certificate is not trusted: its CA is not in ssl.ca.location, it has expired, or it names "
            "another host than kafka.brokers"
        )
    if "tls alert" in reason:
        return "the broker does not take our certificate: see ssl.certificate.location in kafka.options"
    if "SSL handshake failed" in reason:
        return "no TLS with the broker: see security.protocol in kafka.options"
    return ""


def _right(code: int, kafka: KafkaSettings, topic: str, operation: Operation) -> str:
    match code:
        case KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return f"{operation} on topic {topic}"
        case KafkaError.GROUP_AUTHORIZATION_FAILED:
            # Joining, committing, and offsets in a transaction (TxnOffsetCommit) all ask for it.
            return f"Read on group {kafka.group}"
        case KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            return f"Write on transactional id {transactional_id(kafka)}"
        case _:
            # Brokers before 2.8 want IdempotentWrite of every idempotent producer that has no transactional id.
            return f"{'Create' if operation == 'Create' else 'IdempotentWrite'} on the cluster"


def _principal(kafka: KafkaSettings) -> str:
    """The user of SASL PLAIN and SCRAM; a certificate's or a token's principal is known to the broker alone."""
    user = kafka.options.get("sasl.username")
    return f"User:{user}" if user else "this principal"
