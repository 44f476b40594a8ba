"""Shared by tests: waiting for a condition, and minimal Kafka helpers."""

import os
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

T = TypeVar("T")

# How many partitions a topic gets, and its settings.
Layout = int | tuple[int, Mapping[str, str]]
# Key, value and headers of a record.
Record = tuple[bytes | None, bytes | None, Sequence[tuple[str, bytes]]]


def wait_until(condition: Callable[[], T], seconds: float, what: str = "the condition") -> T:
    """Call `condition` until it is truthy, and return what it gave; AssertionError names `what` after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:g} s, the last value was {value!r}"[:500])
        time.sleep(0.02)


def get(port: int, path: str) -> tuple[int, str]:
    """Status and body of a GET on this machine; 0 and the reason if nothing answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


@contextmanager
def fifo(path: Path, content: bytes) -> Iterator[Path]:
    """A FIFO that gives its content to one reader."""
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(content,))
    writer.start()
    yield path
    writer.join(120)
    assert not writer.is_alive()


def unique(name: str) -> str:
    """A name for a topic, a group or a transaction that no other test has."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


def create_topics(address: str, layouts: Mapping[str, Layout]) -> None:
    """Create topics on a real broker, and wait until each partition has a leader."""
    admin = AdminClient({"bootstrap.servers": address})
    split = {name: (layout, {}) if isinstance(layout, int) else layout for name, layout in layouts.items()}
    new = [NewTopic(name, partitions, -1, config=dict(config)) for name, (partitions, config) in split.items()]
    for future in admin.create_topics(new, operation_timeout=30).values():
        future.result()

    for name, (partitions, _) in split.items():
        wait_until(partial(_led, admin, name, partitions), 120, f"a leader for each partition of {name}")


def _led(admin: AdminClient, name: str, count: int) -> bool:
    partitions = admin.list_topics(name, timeout=60).topics[name].partitions.values()
    return len(partitions) == count and all(partition.leader >= 0 for partition in partitions)


def produce(
    address: str, topic: str, records: Iterable[Record], partition: int = -1, milliseconds: int | None = None
) -> None:
    """Produce records and wait until the broker has them all; -1 leaves the partition to the key.

    `milliseconds`: their timestamp instead of now.
    """
    timed = {} if milliseconds is None else {"timestamp": milliseconds}
    refused: list[KafkaError] = []
    producer = Producer({"bootstrap.servers": address, "partitioner": "murmur2_random", "enable.idempotence": True})

    def confirm(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            refused.append(error)

    for key, value, headers in records:
        producer.produce(topic, value, key, partition, on_delivery=confirm, headers=list(headers), **timed)
        producer.poll(0)
    assert producer.flush(30) == 0, f"{topic} did not take the records within 30 s"
    assert not refused, refused


# What a topic needs for brokers from 4.0 on to take a timestamp in the future.
ANY_TIME = {"message.timestamp.after.max.ms": str(2**63 - 1)}
# What a producer writes that takes microseconds for the milliseconds of Kafka: the year 58000.
MICROSECONDS = int(time.time() * 1_000_000)


def consume_all(
    address: str,
    topic: str,
    isolation: str = "read_committed",
    until: Callable[[list[Message]], bool] | None = None,
    seconds: float = 120,
) -> list[Message]:
    """Every message of a topic, from the beginning, in the order of each partition.

    Reads to the end of each partition as it is now (by _PARTITION_EOF: transaction markers count in the watermarks and
    are never delivered), or, where `until` is given, on until it holds. AssertionError after `seconds`.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": unique("reader"),
            "isolation.level": isolation,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,  # an empty response, which waits this long, signals the end of a partition
            "auto.offset.reset": "earliest",
        }
    )
    try:
        return _read(consumer, topic, until, time.monotonic() + seconds)
    finally:
        consumer.close()


def _read(
    consumer: Consumer, topic: str, until: Callable[[list[Message]], bool] | None, deadline: float
) -> list[Message]:
    partitions = consumer.list_topics(topic, timeout=60).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    messages: list[Message] = []
    open_ends = set(partitions)
    while (not until(messages)) if until else open_ends:
        assert time.monotonic() < deadline, f"{topic}: {len(messages)} messages and no end within the time"
        for message in consumer.consume(500, 0.1):
            error = message.error()
            if error is None:
                messages.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                open_ends.discard(message.partition() or 0)
            else:
                raise AssertionError(f"{topic}: {error}")
    return messages
