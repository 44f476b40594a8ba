"""Map librdkafka's errors to the tagbus error tree.

| librdkafka reports | mapped to |
| --- | --- |
| another process uses this transactional.id or group.instance.id | Fenced |
| a right is missing, or the credentials are rejected | UserError that names the right to grant |
| a topic or a partition does not exist | TopicMissing |
| the brokers do not serve the group protocol of KIP-848 | UserError |
| the brokers refuse a timeout of the settings | UserError that names it |
| another fatal error of the client | Fatal |
| a setting of the topic is wrong | UserError, from `access.failure` alone |
| anything else | None: librdkafka retries, or the same call may succeed later |

How a transaction step handles an error is decided in bus/publish/transaction.py.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException

from tagbus.stream.config import KafkaSettings
from tagbus.stream.errors import Fatal, Fenced, TagbusError, TopicMissing, UserError
from tagbus.stream.kafka.rights import REFUSED, Operation, refusal, transactional_id

FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.TRANSACTION_COORDINATOR_FENCED,
    }
)
NO_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})
# Errors of a request about a group while its coordinator is found: the first one of a cluster, or one that moves.
NO_COORDINATOR = frozenset(
    {KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS}
)
# Errors of a record that was dropped unsent because its transaction failed: the next step of that reports the cause.
PURGED = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})
UNSUPPORTED = (KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE)
# Codes of a call when no broker answers, or none accepts the credentials.
NO_BROKER = frozenset({KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN})

# The request that only the group protocol of KIP-848 sends, and librdkafka's error if the broker does not know it.
NEW_PROTOCOL = "ConsumerGroupHeartbeat"
_NOT_SERVED = re.compile("|".join(re.escape(KafkaError(code).str()) for code in UNSUPPORTED))
# A consumer's fatal error is reported as _FATAL, which is not marked fatal, with the cause only in its text.
_CAUSES = {KafkaError(code).str(): code for code in (*FENCED, KafkaError.UNRELEASED_INSTANCE_ID)}

# Exceptions raised by librdkafka calls. A fatal client error can surface in any call that serves callbacks: as a bare
# KafkaError, which no `except Exception` catches because the type does not derive from BaseException, or, if another
# callback runs after it, as a SystemError, with that error as its cause or without any.
_LOST = re.compile(
    r".* of 'cimpl\..* returned NULL without setting an exception|"
    # Seen at the close of a consumer whose process was fenced: the client sets what is no exception.
    r"_PyErr_SetObject: exception .* is not a BaseException subclass"
)
RAISED: tuple[type[BaseException], ...] = (KafkaException, KafkaError, SystemError)  # type: ignore[assignment]


def lost(raised: SystemError) -> bool:
    """Whether a client call has failed and no longer has its error: a callback that ran after it has dropped it. The
    next call of that client reports a fatal error once more."""
    return _LOST.fullmatch(str(raised)) is not None


def error_of(raised: object) -> KafkaError:
    """The KafkaError behind an exception. Re-raises a SystemError of another origin."""
    if isinstance(raised, SystemError):
        cause = raised.__cause__ or raised.__context__
        if isinstance(cause, KafkaException | KafkaError):
            raised = cause
        elif lost(raised):
            return KafkaError(KafkaError._FATAL, "a fatal error of the client, which it no longer has")
        else:
            raise raised
    error = raised.args[0] if isinstance(raised, KafkaException) else raised
    return error if isinstance(error, KafkaError) else KafkaError(KafkaError._FAIL, str(error))


def classify(error: KafkaError, kafka: KafkaSettings, topic: str, operation: Operation = "Read") -> TagbusError | None:
    """The tagbus error that ends the process, or None if waiting helps.

    `topic` and `operation` are what the call requested; the message names them.
    """
    code = error.code()
    if code == KafkaError._FATAL:
        code = next((cause for text, cause in _CAUSES.items() if text in error.str()), code)
    if code in FENCED:
        return Fenced(_fenced(code, error, kafka))
    if code in REFUSED:
        return UserError(refusal(error, kafka, topic, operation))
    if code in NO_TOPIC:
        return TopicMissing(topic)
    # librdkafka would join the group again and again with a session that is refused.
    if code == KafkaError.INVALID_SESSION_TIMEOUT:
        limits = "one from group.min.session.timeout.ms to group.max.session.timeout.ms"
        return UserError(_refused(f"kafka.session_seconds={kafka.session_seconds:g}", limits, error))
    if code == KafkaError.INVALID_TRANSACTION_TIMEOUT:
        limits = "at most transaction.max.timeout.ms"
        return UserError(_refused(f"kafka.transaction_seconds={kafka.transaction_seconds:g}", limits, error))
    if code == KafkaError.UNRELEASED_INSTANCE_ID:
        return Fatal(
            f"another process runs with kafka.instance={kafka.instance}, or ended without leaving the group "
            "(static membership, UNRELEASED_INSTANCE_ID): in that case start again after its session has ended, "
            "group.consumer.session.timeout.ms"
        )
    if NEW_PROTOCOL in error.str() and _NOT_SERVED.search(error.str()):
        return UserError(
            f"kafka.group_protocol={kafka.group_protocol}: the brokers do not serve it, expected classic; consumer "
            f"(KIP-848) needs 4.0 ({error.str()})"
        )
    if error.fatal() or code == KafkaError._FATAL:
        return Fatal(f"Kafka client failed ({error.name()}): {error.str()}")
    return None


@contextmanager
def map_kafka_errors(kafka: KafkaSettings, topic: str = "", operation: Operation = "Read") -> Iterator[None]:
    """Wrap client calls. Raises the error of `classify`, or KafkaException if waiting helps."""
    try:
        yield
    except RAISED as raised:
        error = error_of(raised)
        raise classify(error, kafka, topic, operation) or KafkaException(error) from None


def _refused(given: str, limits: str, error: KafkaError) -> str:
    return (
        f"{given} is refused by the brokers ({error.name()}), expected {limits} of theirs, as `tagbus check` shows them"
    )


def _fenced(code: int, error: KafkaError, kafka: KafkaSettings) -> str:
    if code == KafkaError.FENCED_INSTANCE_ID:
        return (
            f"another process has taken over kafka.instance={kafka.instance} in group {kafka.group}, where each worker "
            f"needs its own: {error.str()}"
        )
    return (
        f"another process has taken over transactional id {transactional_id(kafka)} (each worker needs its own "
        f"kafka.instance), or a transaction was open for longer than kafka.transaction_seconds ({error.name()}): "
        f"{error.str()}"
    )
