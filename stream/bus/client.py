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

log = logging.getLogger(__name__)

ErrorCallback = Callable[[KafkaError], None]
Properties = dict[str, str | int | float | bool]

# Room for headers and key above the largest value, in bytes: the client must not refuse what the broker takes.
_RECORD_ROOM = 131_072

_OURS = {
    "auto.commit.interval.ms": "nothing: tagbus commits each batch itself",
    "bootstrap.servers": "kafka.brokers",
    "enable.auto.commit": "nothing: tagbus commits each batch itself",
    "enable.auto.offset.store": "nothing: tagbus commits each batch itself",
    "enable.idempotence": "kafka.delivery",
    "enable.partition.eof": "nothing",
    "group.id": "kafka.group",
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
REFUSED = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
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


def consumer(settings: Settings, on_error: ErrorCallback) -> Consumer:
    """A member of the group, not yet subscribed. Raises UserError for a property that librdkafka does not take."""
    kafka = settings.kafka
    ours: Properties = {
        "group.id": kafka.group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "isolation.level": "read_committed",
        "max.poll.interval.ms": _milliseconds(max(kafka.poll_seconds, kafka.session_seconds)),
    }
    defaults: Properties = {
        "auto.offset.reset": "earliest",
        "queued.max.messages.kbytes": max(1024, settings.batch.in_flight_bytes // 1024),
    }
    if kafka.options.get("group.protocol") != "consumer":
        # The protocol of KIP-848 keeps these two on the broker, and librdkafka refuses them.
        ours["session.timeout.ms"] = _milliseconds(kafka.session_seconds)
        defaults["partition.assignment.strategy"] = "cooperative-sticky"
        defaults["heartbeat.interval.ms"] = _milliseconds(min(3.0, kafka.session_seconds / 3))
    with UserErrors(kafka):
        return Consumer(_properties(kafka, defaults, ours), error_cb=on_error, logger=log)


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
        ours["transactional.id"] = f"{kafka.transactional_id}-{kafka.instance}"
        ours["transaction.timeout.ms"] = _milliseconds(kafka.transaction_seconds)
    # librdkafka refuses a transactional producer whose messages may outlive their transaction.
    defaults["message.timeout.ms"] = _milliseconds(kafka.transaction_seconds)
    with UserErrors(kafka):
        return Producer(_properties(kafka, defaults, ours), error_cb=on_error, logger=log)


def admin(settings: Settings) -> AdminClient:
    """For topics and checks."""
    with UserErrors(settings.kafka):
        return AdminClient(_properties(settings.kafka, {}, {}), logger=log)


def error_of(exception: KafkaException) -> KafkaError:
    """The KafkaError that a KafkaException carries."""
    error = exception.args[0]
    if not isinstance(error, KafkaError):
        return KafkaError(KafkaError._FAIL, str(error))
    return error


@contextmanager
def serving() -> Iterator[None]:
    """Around calls that serve librdkafka's callbacks: a fatal error of the client is raised from there, and turns into
    a SystemError where another callback runs after it. Raises Fenced or Fatal, lets other errors pass."""
    try:
        yield
    except (KafkaException, SystemError) as raised:
        cause = raised.__cause__ or raised.__context__ if isinstance(raised, SystemError) else raised
        if not isinstance(cause, KafkaException):
            raise
        ending = named(error_of(cause), "")
        if ending is None:
            raise cause from None
        raise ending from None


def named(error: KafkaError, topic: str) -> TagbusError | None:
    """The error of ours that ends the process, or None where waiting helps. `topic`: what the message names."""
    code = error.code()
    if code in FENCED:
        return Fenced(f"another process has taken over ({error.name()}): {error.str()}")
    if code in REFUSED:
        return UserError(f"Kafka refuses this principal ({error.name()}): {error.str()}; see kafka.options and ACLs")
    if code in NO_TOPIC:
        return UserError(f"topic {topic} is not there; `tagbus topics create` makes it")
    if error.fatal():
        return Fatal(f"Kafka client failed ({error.name()}): {error.str()}")
    return None


def _properties(kafka: KafkaSettings, defaults: Properties, ours: Properties) -> Properties:
    given = kafka.client()
    for name in (*kafka.options, *kafka.secrets):
        if name in _OURS:
            raise UserError(f"kafka.options: {name} may not be set there, set {_OURS[name]}")
    return {**defaults, **given, **ours}


class UserErrors:
    """Turns librdkafka's complaints about properties into one line that shows no secret."""

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
