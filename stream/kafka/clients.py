"""The kinds of Kafka clients and their properties; no client is configured anywhere else.

| client | for | sets |
| --- | --- | --- |
| `group_member` | the worker, `tagbus skip` | no auto commit; no `auto.offset.reset`: it never chooses a position |
| `reader` | topics read without a group | no commit; its start position, and where it continues after a reset |
| `result_producer` | results, dead letters | the transaction; failed deliveries only; lz4, 5 ms of linger |
| `plain_producer` | records published by a person or a command | idempotence; 10 MB; limited batches; 20 ms of linger |
| `admin` | topics, groups, ACLs | nothing |

All consumers read committed records unless configured otherwise. The first two enable `enable.partition.eof` to learn
where a partition ends, because transaction markers count in its high watermark. All producers are idempotent and
partition by murmur2, as Java clients do. No client creates a topic by requesting its metadata, as producers and admin
clients do by default: a broker with auto.create.topics.enable, Kafka's default, would create it with one partition and
without compaction.

`kafka.options` and `kafka.secrets` pass through, except the few properties that the delivery guarantee depends on:
those have their own settings or are fixed. Each function raises UserError for a property that librdkafka rejects.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from tagbus.stream.config import KafkaSettings, Settings
from tagbus.stream.errors import UserError
from tagbus.stream.kafka.errors import error_of
from tagbus.stream.kafka.logs import QUIET, log
from tagbus.stream.kafka.rights import transactional_id

ErrorCallback = Callable[[KafkaError], None]
Properties = dict[str, str | int | float | bool]

# The partition.assignment.strategy of the classic protocol, unless kafka.options has another.
ASSIGNOR = "cooperative-sticky"
# Room for headers and key beyond the largest value, in bytes: the client must not reject what the broker accepts.
_RECORD_ROOM = 131_072
# The largest answer to a fetch, in bytes as they are compressed on the topic. The client unpacks an answer as a whole,
# however little its queue may take: a worker on 800 MB of contents, compressed to 44 MB, took 888 MB of memory with the
# client's 50 MB, and 363 MB with 4 MB. It was no slower.
_FETCH_BYTES = 4_000_000
# For records that people publish; the limits of broker and topic apply.
_PLAIN_BYTES = 10_000_000
# librdkafka's default of batch.size, in bytes.
_BATCH_BYTES = 1_000_000

# librdkafka's errors also reach the caller, and its log would write 20 lines a second while brokers are down.
_SILENT: Properties = {"log_level": 2}
_CONSUMER: Properties = {"fetch.max.bytes": _FETCH_BYTES}
_PRODUCER: Properties = {"enable.idempotence": True, "partitioner": "murmur2_random"}

_GUARDED = {
    "allow.auto.create.topics": "nothing: `tagbus topics create` alone creates topics",
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


def group_member(settings: Settings, on_error: ErrorCallback) -> Consumer:
    """A member of the group, not yet subscribed.

    Without a committed offset, or if it is out of range, it reports _AUTO_OFFSET_RESET instead of choosing a position.
    """
    kafka = settings.kafka
    ours: Properties = {
        "group.id": kafka.group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        # Transaction markers count in the end offset but are never delivered: only the client knows the real end.
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "max.poll.interval.ms": _milliseconds(max(kafka.poll_seconds, kafka.session_seconds)),
    }
    defaults: Properties = {
        **_CONSUMER,
        "queued.max.messages.kbytes": max(1024, settings.batch.in_flight_bytes // 1024),
    }
    if kafka.membership == "static":
        ours["group.instance.id"] = kafka.instance
    if kafka.group_protocol == "consumer":
        # KIP-848 moves session, heartbeat and strategy to the broker, and librdkafka rejects them.
        ours["group.protocol"] = "consumer"
    else:
        ours["session.timeout.ms"] = _milliseconds(kafka.session_seconds)
        defaults["partition.assignment.strategy"] = ASSIGNOR
        defaults["heartbeat.interval.ms"] = _milliseconds(min(3.0, kafka.session_seconds / 3))
    properties = _properties(kafka, defaults, ours)
    with _named_properties(kafka):
        return Consumer(properties, error_cb=on_error, logger=log)


def reader(
    kafka: KafkaSettings,
    reset: Literal["earliest", "error"] = "earliest",
    isolation: Literal["read_committed", "read_uncommitted"] = "read_committed",
) -> Consumer:
    """A consumer with manual assignment, in no group.

    `reset`: if an offset is out of range, continue at the earliest record, or report _AUTO_OFFSET_RESET. `isolation`
    also decides where a partition ends: before its first open transaction, or at its high watermark.
    """
    ours: Properties = {
        # librdkafka requires a group id; nothing joins it or commits to it.
        "group.id": f"{kafka.group}-reader",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": reset,
        "isolation.level": isolation,
    }
    properties = _properties(kafka, {**_SILENT, **_CONSUMER}, ours)
    with _named_properties(kafka):
        return Consumer(properties, logger=QUIET)


def result_producer(settings: Settings, on_error: ErrorCallback) -> Producer:
    """The producer of results: transactional, or idempotent at `at_least_once`."""
    kafka = settings.kafka
    ours: Properties = {
        **_PRODUCER,
        "message.max.bytes": settings.batch.record_bytes + _RECORD_ROOM,
        "delivery.report.only.error": True,
    }
    # A topic with a lower limit rejects batches of librdkafka's size, even if it accepts each record.
    defaults: Properties = {
        "compression.type": "lz4",
        "linger.ms": 5,
        "batch.size": min(_BATCH_BYTES, settings.batch.record_bytes),
    }
    if kafka.delivery == "exactly_once":
        # A coordinator that is still writing the markers of one transaction rejects the offsets of the next, and the
        # client retries after this time: with the default of 100 ms many transactions took 100 ms instead of 10.
        defaults["retry.backoff.ms"] = 10
        ours["transactional.id"] = transactional_id(kafka)
        ours["transaction.timeout.ms"] = _milliseconds(kafka.transaction_seconds)
    # librdkafka rejects a transactional producer whose messages may outlive their transaction.
    defaults["message.timeout.ms"] = _milliseconds(kafka.transaction_seconds)
    properties = _properties(kafka, defaults, ours)
    with _named_properties(kafka):
        return Producer(properties, error_cb=on_error, logger=log)


def plain_producer(kafka: KafkaSettings, batch_bytes: int | None = None) -> Producer:
    """A producer for tags, exemplars, releases and contents published by a person or a command. `batch_bytes`: the
    topic's maximum batch size, if it is known."""
    ours: Properties = {**_PRODUCER, "message.max.bytes": _PLAIN_BYTES}
    defaults: Properties = {**_SILENT, "linger.ms": 20}
    if batch_bytes is not None:
        defaults["batch.size"] = min(_BATCH_BYTES, batch_bytes)
    properties = _properties(kafka, defaults, ours)
    with _named_properties(kafka):
        return Producer(properties, logger=QUIET)


def admin(kafka: KafkaSettings) -> AdminClient:
    """An admin client for topics, groups and checks."""
    properties = _properties(kafka, {}, {})
    with _named_properties(kafka):
        return AdminClient(properties, logger=log)


def quiet_admin(kafka: KafkaSettings, on_error: ErrorCallback) -> AdminClient:
    """An admin client that logs nothing; errors go to `on_error`."""
    properties = _properties(kafka, {}, {"log_level": 0})
    with _named_properties(kafka):
        return AdminClient(properties, error_cb=on_error)


def _properties(kafka: KafkaSettings, defaults: Properties, ours: Properties) -> Properties:
    """Merge the properties. Raises UserError if kafka.options contains a guarded one."""
    for name in (*kafka.options, *kafka.secrets):
        if name in _GUARDED:
            raise UserError(f"kafka.options: {name} may not be set there, set {_GUARDED[name]}")
    return {**defaults, **kafka.client(), "allow.auto.create.topics": False, **ours}


@contextmanager
def _named_properties(kafka: KafkaSettings) -> Iterator[None]:
    """Convert librdkafka's error about a property into one line without secrets."""
    try:
        yield
    except (KafkaException, ValueError, TypeError) as error:
        text = error_of(error).str() if isinstance(error, KafkaException) else str(error)
        for secret in kafka.secrets.values():
            if secret.get_secret_value():
                text = text.replace(secret.get_secret_value(), "********")
        raise UserError(f"kafka.options: {text}") from None


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
