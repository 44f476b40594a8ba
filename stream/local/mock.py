"""librdkafka's mock cluster: in-process brokers that any client on this machine can reach.

It is driven through ctypes with the public header `rdkafka_mock.h`: the Python client's only setting for it
(`test.mock.num.brokers`) does not control partitions and makes every new group wait 3 s for its first assignment.
"""

import ctypes
import re
from types import TracebackType
from typing import Literal, Self

from confluent_kafka import cimpl

from tagbus.stream.errors import UserError, shorten

PARTITIONS = 4  # librdkafka's default for auto-created topics
_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")  # Kafka's own rule; the mock cluster accepts any name
_PRODUCER = 0  # rd_kafka_type_t
_EXISTS = 36  # RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS
_FIRST_BROKER = 1

_SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "rd_kafka_conf_new": (ctypes.c_void_p, ()),
    "rd_kafka_conf_set": (
        ctypes.c_int,
        (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t),
    ),
    "rd_kafka_new": (ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)),
    "rd_kafka_destroy": (None, (ctypes.c_void_p,)),
    "rd_kafka_mock_cluster_new": (ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_int)),
    "rd_kafka_mock_cluster_destroy": (None, (ctypes.c_void_p,)),
    "rd_kafka_mock_cluster_bootstraps": (ctypes.c_char_p, (ctypes.c_void_p,)),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, (ctypes.c_void_p, ctypes.c_int32)),
    "rd_kafka_mock_set_group_consumer_heartbeat_interval_ms": (None, (ctypes.c_void_p, ctypes.c_int)),
    "rd_kafka_mock_topic_create": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int)),
    "rd_kafka_mock_broker_set_down": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_int32)),
    "rd_kafka_mock_broker_set_up": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_int32)),
    "rd_kafka_mock_broker_set_rtt": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_int32, ctypes.c_int)),
    "rd_kafka_mock_coordinator_set": (
        ctypes.c_int,
        (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int32),
    ),
    "rd_kafka_mock_push_request_errors_array": (
        None,
        (ctypes.c_void_p, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)),
    ),
}


class MockCluster:
    """Brokers for the demo and for fault injection; a context manager, running once constructed. They are numbered from
    1; the default is one.

    Groups, headers, commits and keys work as on a real broker. Not supported:

    - Transactions: aborted records are visible to read_committed, and offsets sent in a transaction are never stored.
      So it is at least once only.
    - CreateTopics: create topics with `topic`, or on first use, with `PARTITIONS` partitions.
    - Compaction and retention by time. It keeps 5 MiB of record batches, as they came over the wire, and at most
      100,000 batches of a partition, in memory. Beyond that the oldest batches are dropped silently: the low
      watermark advances, and a consumer below it is reset by its `auto.offset.reset`.
    - Rebalancing like a real broker. With the classic protocol every membership change, even a new member after a
      close, takes `session.timeout.ms` less one second (44 s with the client's default), because the wait for the other
      members ends by time alone. `group.protocol=consumer` (KIP-848) has no such wait.

    It listens on 127.0.0.1. Raises UserError if confluent-kafka is built without these functions (Windows).
    """

    def __init__(self, brokers: int = 1) -> None:
        self._lib = _library()
        conf = self._lib.rd_kafka_conf_new()
        reason = ctypes.create_string_buffer(512)
        # Its only message would warn that this handle, which connects to nothing, has no bootstrap.servers.
        self._lib.rd_kafka_conf_set(conf, b"log_level", b"0", reason, len(reason))
        self._handle: int | None = self._lib.rd_kafka_new(_PRODUCER, conf, reason, len(reason))
        if not self._handle:
            raise UserError(f"the mock cluster does not start: {reason.value.decode(errors='replace')}")
        self._cluster: int = self._lib.rd_kafka_mock_cluster_new(self._handle, brokers)
        self._lib.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        # Members learn of a rebalance (KIP-848) from their heartbeats: 3 s by default.
        self._lib.rd_kafka_mock_set_group_consumer_heartbeat_interval_ms(self._cluster, 500)
        self.address: str = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def topic(self, name: str, partitions: int = PARTITIONS) -> None:
        """Create a topic. Raises UserError for a name that Kafka rejects, or a topic that exists already."""
        if not _NAME.fullmatch(name):
            raise UserError(f"topic {shorten(name)}: expected 1 to 249 of the characters A-Z a-z 0-9 . _ -")
        if not 1 <= partitions <= 1000:
            raise UserError(f"topic {name}: {partitions} partitions, expected 1 to 1000")
        code = self._lib.rd_kafka_mock_topic_create(self._open(), name.encode(), partitions, 1)
        if code == _EXISTS:
            raise UserError(f"topic {name} already exists; create a topic before its first use")
        if code:
            raise UserError(f"topic {name}: the mock cluster refused it with code {code}")

    def down(self, broker: int = _FIRST_BROKER) -> None:
        """Close every connection and refuse new ones, like a broker that is down; the records are kept."""
        self._lib.rd_kafka_mock_broker_set_down(self._open(), broker)

    def up(self, broker: int = _FIRST_BROKER) -> None:
        """Accept connections again."""
        self._lib.rd_kafka_mock_broker_set_up(self._open(), broker)

    def coordinator(self, kind: Literal["group", "transaction"], name: str, broker: int) -> None:
        """Make this broker the coordinator of a group or a transactional.id."""
        self._lib.rd_kafka_mock_coordinator_set(self._open(), kind.encode(), name.encode(), broker)

    def slow(self, seconds: float) -> None:
        """Delay every response, like a distant or overloaded broker."""
        self._lib.rd_kafka_mock_broker_set_rtt(self._open(), _FIRST_BROKER, int(seconds * 1000))

    def fail(self, api_key: int, *errors: int) -> None:
        """Fail the next requests of one type with these errors, one per request.

        `api_key` is the protocol's request number (0 Produce, 1 Fetch, 8 OffsetCommit, 24 AddPartitionsToTxn, 25
        AddOffsetsToTxn, 26 EndTxn, 28 TxnOffsetCommit), `errors` are codes of `confluent_kafka.KafkaError`.
        """
        array = (ctypes.c_int * len(errors))(*errors)
        self._lib.rd_kafka_mock_push_request_errors_array(self._open(), api_key, len(errors), array)

    def close(self) -> None:
        """Stop it and drop its topics. Idempotent."""
        if self._handle:
            self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
            self._lib.rd_kafka_destroy(self._handle)
            self._handle = None

    def _open(self) -> int:
        if not self._handle:
            raise UserError("this mock cluster is closed")
        return self._cluster


def _library() -> ctypes.CDLL:
    """librdkafka as loaded by the Python client: symbols are resolved through the extension module's dependencies."""
    try:
        library = ctypes.CDLL(cimpl.__file__)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype = result
            function.argtypes = arguments
    except (OSError, AttributeError) as error:
        raise UserError(
            f"this confluent-kafka has no mock cluster ({shorten(str(error))}); use its wheel for Linux or macOS"
        ) from error
    return library
