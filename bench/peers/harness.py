"""Parts of a benchmark run: its topics, the measured process, and a reader of the results."""

import json
import os
import subprocess
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from spec import COMPRESSION, Spec, source_headers

STOP_SECONDS = 10.0
# Characters of a failed process's log that are reported.
TAIL = 300
_SOURCE = [name for name, _ in source_headers("", 0, 0)]


class Failed(Exception):
    """A contender failed; the message says how."""


class Topics:
    """An input and an output topic with unique names; a context manager that creates and deletes them."""

    def __init__(self, brokers: str, partitions: int) -> None:
        self.group = f"bench-{uuid.uuid4().hex[:8]}"
        self.content, self.tagged = f"{self.group}-content", f"{self.group}-tagged"
        self._partitions = partitions
        self._brokers = brokers
        self._admin = AdminClient({"bootstrap.servers": brokers})

    def __enter__(self) -> Self:
        topics = [NewTopic(name, self._partitions, 1) for name in (self.content, self.tagged)]
        for future in self._admin.create_topics(topics, operation_timeout=30).values():
            future.result()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        for future in self._admin.delete_topics([self.content, self.tagged], operation_timeout=30).values():
            future.result()

    def producer(self, linger_ms: int) -> Producer:
        """A producer of events, with the partitioner of Java clients."""
        return Producer(
            {
                "bootstrap.servers": self._brokers,
                "partitioner": "murmur2_random",
                "compression.type": COMPRESSION,
                "linger.ms": linger_ms,
            }
        )

    def fill(self, events: Iterable[tuple[bytes, bytes]]) -> None:
        """Produce all events and wait for their confirmation."""
        producer = self.producer(20)
        for key, value in events:
            while True:
                try:
                    producer.produce(self.content, value, key)
                    break
                except BufferError:
                    producer.poll(0.1)
        if producer.flush(60):
            raise Failed("the broker did not confirm the events within 60 s")


class Process:
    """The measured process; a context manager that starts and stops it."""

    def __init__(self, command: list[str], spec: Spec, arguments: Iterable[str] = ()) -> None:
        self._command = [*command, json.dumps(asdict(spec)), *arguments]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.stop()
        self._log.close()

    @property
    def pid(self) -> int:
        """The process id, for a profiler."""
        return self._process.pid

    def cpu_seconds(self) -> float:
        """User and system time of all threads (proc(5))."""
        with open(f"/proc/{self.pid}/stat", encoding="utf-8") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def check(self) -> None:
        """Raises Failed if the process has exited."""
        code = self._process.poll()
        if code is not None:
            raise Failed(f"exited with code {code}: {self.tail()}")

    def tail(self) -> str:
        """The end of the log, on one line."""
        self._log.seek(0)
        return " ".join(self._log.read().decode(errors="replace").split())[-TAIL:]

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after 10 s."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class Reader:
    """Collects all results as they become visible under read_committed; a context manager."""

    def __init__(self, spec: Spec, partitions: int) -> None:
        self._consumer = Consumer(
            {
                **spec.consumer(),
                "group.id": f"{spec.group}-reader",
                # Results are read as soon as they are visible; the default lets the broker wait for more.
                "fetch.wait.max.ms": 100,
            }
        )
        self._consumer.assign([TopicPartition(spec.tagged, number, 0) for number in range(partitions)])
        self.messages: list[Message] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._consumer.close()

    def read(self, seconds: float) -> list[Message]:
        """Messages that arrive within `seconds`."""
        first = self._consumer.consume(1, seconds)
        found = [message for message in first + self._consumer.consume(2000, 0) if message.error() is None]
        self.messages += found
        return found

    def until(self, count: int, seconds: float, process: Process) -> float | None:
        """Wait for `count` results in total. Returns their time of arrival (time.monotonic()), None on timeout."""
        end = time.monotonic() + seconds
        while len(self.messages) < count:
            if time.monotonic() > end:
                return None
            if not self.read(0.1):
                process.check()
        return time.monotonic()

    def duplicated_and_lost(self, sent: int | None) -> tuple[int, int]:
        """Duplicated and lost results, by the source in their headers. With `sent` None (the run was cut short) a
        source counts as lost if a later one of its partition has a result. Raises Failed if a header is missing."""
        found = Counter(map(_source, self.messages))
        distinct = len(found)
        if sent is None:
            last: dict[int, int] = {}
            for partition, offset in found:
                last[partition] = max(last.get(partition, -1), offset)
            sent = sum(offset + 1 for offset in last.values())
        return len(self.messages) - distinct, sent - distinct

    def result_bytes(self) -> float:
        """Mean size of a result's value in bytes."""
        return sum(len(message.value() or b"") for message in self.messages) / max(1, len(self.messages))


def _source(message: Message) -> tuple[int, int]:
    headers = dict(message.headers() or ())
    try:
        return int(headers[_SOURCE[1]] or b""), int(headers[_SOURCE[2]] or b"")
    except (KeyError, ValueError):
        raise Failed(f"a result's headers do not name its source: {headers}"[:TAIL]) from None
