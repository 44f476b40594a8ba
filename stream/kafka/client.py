"""librdkafka's clients as tagbus needs them.

What an operator sets in `kafka.options` and `kafka.secrets` passes through, except the few properties that the
delivery guarantee rests on: those have settings of their own or may not be changed.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from tagbus.stream.config import KafkaSettings, Settings
from tagbus.stream.errors import Fatal, Fenced, TagbusError, UserError
from tagbus.stream.kafka.refusal import REFUSED, Operation, refusal, transactional_id

log = logging.getLogger(__name__)

ErrorCallback = Callable[[KafkaError], None]
Properties = dict[str, str | int | float | bool]

# Room for headers and key above the largest value, in bytes: the client must not refuse what the broker takes.
_RECORD_ROOM = 131_072

_OURS = {
    "auto.commit.interval.ms": "nothing: tagbus commits each batch itself",
    "auto.offset.reset": "kafka.start and kafka.out_of_range",
    "bootstrap.servers": "kafka.brokers",
    "enable.auto.commit": "nothing: tagbus commits each batch itself",
    "enable.auto.offset.store": "nothing: tagbus commits each batch itself",
    "enable.idempotence": "kafka.delivery",
    "enable.partition.eof": "nothing",
    "group.id": "kafka.group",
    "group.instance.id": "kafka.membership",
    "group.protocol": "kafka.group_protocol",
    "isolation.level": "nothing: aborted records are never content",
    "max.poll.interval.ms": "kafka.poll_seconds",
    "message.max.bytes": "batch.record_bytes",
    "partitioner": "nothing: keys must land where Java clients put them",
    "session.timeout.ms": "kafka.session_seconds",
    "transaction.timeout.ms": "kafka.transaction_seconds",
    "transactional.id": "kafka.transactional_id and kafka.instance",
}

# While brokers are away librdkafka tries and reports ten times a second: one line of a kind within so long.
REPEAT_SECONDS = 10.0

FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.TRANSACTION_COORDINATOR_FENCED,
    }
)
# A consumer's fatal error comes as _FATAL, which is not marked fatal, with the cause in its text alone.
_CAUSES = {KafkaError(code).str(): code for code in (*FENCED, KafkaError.UNRELEASED_INSTANCE_ID)}
NO_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})


class _Repeats(logging.Filter):
    """Lets warnings of one kind through once in REPEAT_SECONDS. librdkafka's kind is its first argument (FAIL...)."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[int, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or not isinstance(record.args, tuple) or not record.args:
            return True
        kind = (record.levelno, str(record.args[0])[:40])
        if record.created - self._last.get(kind, 0.0) < REPEAT_SECONDS:
            return False
        self._last[kind] = record.created
        return True


log.addFilter(_Repeats())


def report(error: KafkaError) -> None:
    """Log an error that librdkafka mends itself."""
    log.warning("kafka: error=%s reason=%s", error.name(), error.str())


def consumer(settings: Settings, on_error: ErrorCallback, more: Properties | None = None) -> Consumer:
    """A member of the group, not yet subscribed. It never chooses where to begin: without an offset, and with one that
    is gone, it says so (_AUTO_OFFSET_RESET). `more`: properties of this one. Raises UserError for a property that
    librdkafka does not take."""
    kafka = settings.kafka
    ours: Properties = {
        "group.id": kafka.group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "max.poll.interval.ms": _milliseconds(max(kafka.poll_seconds, kafka.session_seconds)),
    }
    defaults: Properties = {"queued.max.messages.kbytes": max(1024, settings.batch.in_flight_bytes // 1024)}
    if kafka.membership == "static":
        ours["group.instance.id"] = kafka.instance
    if kafka.group_protocol == "consumer":
        # KIP-848 keeps session, heartbeat and strategy on the broker, and librdkafka refuses them.
        ours["group.protocol"] = "consumer"
    else:
        ours["session.timeout.ms"] = _milliseconds(kafka.session_seconds)
        defaults["partition.assignment.strategy"] = "cooperative-sticky"
        defaults["heartbeat.interval.ms"] = _milliseconds(min(3.0, kafka.session_seconds / 3))
    with UserErrors(kafka):
        return Consumer(_properties(kafka, defaults, {**ours, **(more or {})}), error_cb=on_error, logger=log)


def producer(settings: Settings, on_error: ErrorCallback) -> Producer:
    """The producer of results: transactional, or idempotent at `at_least_once`."""
    kafka = settings.kafka
    ours: Properties = {
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "message.max.bytes": settings.batch.record_bytes + _RECORD_ROOM,
        "delivery.report.only.error": True,
    }
    defaults: Properties = {"compression.type": "lz4", "linger.ms": 5}
    if kafka.delivery == "exactly_once":
        ours["transactional.id"] = transactional_id(kafka)
        ours["transaction.timeout.ms"] = _milliseconds(kafka.transaction_seconds)
    # librdkafka refuses a transactional producer whose messages may outlive their transaction.
    defaults["message.timeout.ms"] = _milliseconds(kafka.transaction_seconds)
    with UserErrors(kafka):
        return Producer(_properties(kafka, defaults, ours), error_cb=on_error, logger=log)


def admin(settings: Settings) -> AdminClient:
    """For topics and checks."""
    with UserErrors(settings.kafka):
        return AdminClient(_properties(settings.kafka, {}, {}), logger=log)


# What a call of librdkafka raises. A fatal error of the client comes from any call that serves callbacks: as a bare
# KafkaError, which no `except Exception` catches because the type does not derive from BaseException, or, where
# another callback runs after it, as a SystemError.
Raised: tuple[type[BaseException], ...] = (KafkaException, KafkaError, SystemError)  # type: ignore[assignment]


def error_of(raised: object) -> KafkaError:
    """The KafkaError in what a call raised. Raises a SystemError that came from elsewhere again."""
    if isinstance(raised, SystemError):
        cause = raised.__cause__ or raised.__context__
        if not isinstance(cause, KafkaException | KafkaError):
            raise raised
        raised = cause
    error = raised.args[0] if isinstance(raised, KafkaException) else raised
    return error if isinstance(error, KafkaError) else KafkaError(KafkaError._FAIL, str(error))


@contextmanager
def serving(kafka: KafkaSettings, topic: str = "") -> Iterator[None]:
    """Around calls that serve librdkafka's callbacks. Raises Fenced, Fatal or UserError as `named` does, and other
    errors as KafkaException."""
    try:
        yield
    except Raised as raised:
        error = error_of(raised)
        raise named(error, topic, kafka) or KafkaException(error) from None


def named(error: KafkaError, topic: str, kafka: KafkaSettings, operation: Operation = "Read") -> TagbusError | None:
    """The error of ours that ends the process, or None where waiting helps. `topic` and `operation`: what was asked
    for, which the message names."""
    code = error.code()
    if code == KafkaError._FATAL:
        code = next((cause for text, cause in _CAUSES.items() if text in error.str()), code)
    if code in FENCED:
        return Fenced(_fenced(code, error, kafka))
    if code in REFUSED:
        return UserError(refusal(error, kafka, topic, operation))
    if code in NO_TOPIC:
        return UserError(f"topic {topic} is not there; `tagbus topics create` makes it")
    if code == KafkaError.UNRELEASED_INSTANCE_ID:
        return Fatal(
            f"another process runs with kafka.instance={kafka.instance}, or ended without leaving the group "
            "(static membership, UNRELEASED_INSTANCE_ID): then start again when its session has ended, "
            "group.consumer.session.timeout.ms"
        )
    if error.fatal() or code == KafkaError._FATAL:
        return Fatal(f"Kafka client failed ({error.name()}): {error.str()}")
    return None


def _fenced(code: int, error: KafkaError, kafka: KafkaSettings) -> str:
    if code == KafkaError.FENCED_INSTANCE_ID:
        return f"another process has taken over kafka.instance={kafka.instance} in group {kafka.group}: {error.str()}"
    return (
        f"another process has taken over transactional id {transactional_id(kafka)}, or a transaction was open for "
        f"longer than kafka.transaction_seconds ({error.name()}): {error.str()}"
    )


def _properties(kafka: KafkaSettings, defaults: Properties, ours: Properties) -> Properties:
    given = kafka.client()
    for name in (*kafka.options, *kafka.secrets):
        if name in _OURS:
            raise UserError(f"kafka.options: {name} may not be set there, set {_OURS[name]}")
    return {**defaults, **given, **ours}


class UserErrors:
    """Turns librdkafka's errors about properties into one line that shows no secret."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, KafkaException | ValueError | TypeError):
            return
        text = error_of(error).str() if isinstance(error, KafkaException) else str(error)
        for secret in self._kafka.secrets.values():
            if secret.get_secret_value():
                text = text.replace(secret.get_secret_value(), "********")
        raise UserError(f"kafka.options: {text}") from None


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
