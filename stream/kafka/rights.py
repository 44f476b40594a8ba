"""Explain why Kafka denies this principal: the ACL to grant, or the problem with its credentials."""

from typing import Literal

from confluent_kafka import KafkaError

from tagbus.stream.config import KafkaSettings

Operation = Literal["Read", "Write", "Describe", "Create", "Alter", "AlterConfigs"]

AUTHENTICATION = frozenset(
    {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.UNSUPPORTED_SASL_MECHANISM}
)
AUTHORIZATION = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
REFUSED = AUTHENTICATION | AUTHORIZATION


def transactional_id(kafka: KafkaSettings) -> str:
    """The transactional.id: prefix and instance, so that one prefixed ACL covers every worker."""
    return f"{kafka.transactional_id}-{kafka.instance}"


def refusal(error: KafkaError, kafka: KafkaSettings, topic: str, operation: Operation) -> str:
    """The right to grant for an error in REFUSED, or that the broker rejects the credentials.

    Kafka's response names the resource type but rarely the resource; `topic` and `operation` are those of the denied
    call.

    Source: Kafka's documentation, Security, "Operations and Resources on Protocols".
    """
    if error.code() in AUTHENTICATION:
        return rejected(error, kafka)
    return f"Kafka refuses {principal(kafka)}: grant {_right(error.code(), kafka, topic, operation)} ({error.name()})"


def rejected(error: KafkaError, kafka: KafkaSettings) -> str:
    """The message for rejected credentials."""
    return (
        f"Kafka rejects the credentials of {principal(kafka)} ({error.name()}): {error.str()}; "
        "see the security settings in kafka.options and kafka.secrets"
    )


def handshake(reason: str) -> str:
    """The likely cause of a failed TLS handshake; empty for other errors."""
    if "certificate verify failed" in reason:
        return (
            "the broker's certificate is not trusted: its CA is not in ssl.ca.location, it has expired, or it names "
            "another host than kafka.brokers"
        )
    if "tls alert" in reason:
        return "the broker rejects our certificate: see ssl.certificate.location in kafka.options"
    if "SSL handshake failed" in reason:
        return "no TLS with the broker: see security.protocol in kafka.options"
    return ""


def principal(kafka: KafkaSettings) -> str:
    """The user of SASL PLAIN or SCRAM, else `this principal`: only the broker knows that of a certificate or token."""
    user = kafka.options.get("sasl.username")
    return f"User:{user}" if user else "this principal"


def _right(code: int, kafka: KafkaSettings, topic: str, operation: Operation) -> str:
    match code:
        case KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return f"{operation} on topic {topic}"
        case KafkaError.GROUP_AUTHORIZATION_FAILED:
            # Joining, committing, and offsets in a transaction (TxnOffsetCommit) all require it.
            return f"Read on group {kafka.group}"
        case KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            return f"Write on transactional id {transactional_id(kafka)}"
        case _:
            # Brokers before 2.8 require IdempotentWrite of every idempotent producer without a transactional id.
            return f"{'Create' if operation == 'Create' else 'IdempotentWrite'} on the cluster"
