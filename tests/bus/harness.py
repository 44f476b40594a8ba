"""Workers for tests: in a thread, or as a process that may be killed; and checks of the outcome."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from confluent_kafka import Consumer, Message, TopicPartition

from tagbus.stream.bus.consume.bounds import ReadRange
from tagbus.stream.bus.process.isolation import BatchTagger
from tagbus.stream.bus.process.tag_processor import TagProcessor
from tagbus.stream.bus.worker import Gate, Worker, open_gate
from tagbus.stream.config import Settings
from tagbus.stream.local.mock import MockCluster
from tests.support import consume_all, unique, wait_until

PROCESS = Path(__file__).parent / "worker_process.py"
TOPICS = ("content", "tagged", "dead_letters", "exemplars", "feedback", "versions")


def settings(address: str, names: dict[str, str] | None = None, **sections: dict[str, object]) -> Settings:
    """Settings with timeouts that suit tests; `sections` replace single values of a section."""
    given: dict[str, dict[str, object]] = {
        "kafka": {
            "brokers": address,
            "group": unique("group"),
            "transactional_id": unique("tx"),
            "instance": "one",
            "session_seconds": 6,
            "transaction_seconds": 10,
        },
        "topics": dict(names or {}),
        "batch": {"contents": 100, "seconds": 0.05, "drain_seconds": 10},
        "retry": {"first_seconds": 0.02, "cap_seconds": 0.2},
    }
    for section, values in sections.items():
        given[section] = {**given.get(section, {}), **values}
    return Settings.model_validate(given)


def environment(given: Settings, **kafka: str) -> dict[str, str]:
    """The same settings as a process reads them."""
    tree = given.model_dump(mode="json", exclude_defaults=True)
    tree["kafka"].update(kafka)
    flat = {f"TAGBUS_{section}__{name}".upper(): value for section, of in tree.items() for name, value in of.items()}
    text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in flat.items()}
    return {name: value for name, value in os.environ.items() if not name.startswith("TAGBUS_")} | text


def event(name: str, text: str = "Some text.", **fields: object) -> bytes:
    return json.dumps({"id": name, "text": text, **fields}).encode()


def events(count: int, prefix: str = "c", size: int = 10) -> list[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
    """Records of `count` contents with distinct ids."""
    return [(f"{prefix}{i}".encode(), event(f"{prefix}{i}", "x" * size), []) for i in range(count)]


class RunningWorker:
    """A worker in a thread."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="poll", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.worker.run()
        except BaseException as error:
            self.error = error

    def until_ready(self, seconds: float = 120) -> Self:
        wait_until(lambda: self.worker.ready() or self.error, seconds, "a worker that is ready")
        assert self.error is None, self.error
        return self

    def join(self, seconds: float = 120) -> None:
        wait_until(lambda: not self._thread.is_alive(), seconds, "the end of the worker")

    def ended(self) -> bool:
        return not self._thread.is_alive()


class Running(RunningWorker):
    """One that tags."""

    def __init__(
        self, given: Settings, tagger: BatchTagger, gate: Gate = open_gate, read_range: ReadRange | None = None
    ) -> None:
        super().__init__(Worker(given, TagProcessor(given, tagger), gate, read_range))


@contextmanager
def running(given: Settings, tagger: BatchTagger, gate: Gate = open_gate) -> Iterator[Running]:
    """A worker in a thread, stopped at the end; any other end is raised."""
    run = Running(given, tagger, gate)
    try:
        yield run
    finally:
        run.worker.stop()
        run.join()
    if run.error is not None:
        raise run.error


class Process:
    """A worker as a process. `tagger` is a spec of `taggers.named`, `kafka` replaces settings of that section."""

    def __init__(
        self, given: Settings, log: Path, tagger: str | float = "trivial", kill_at: str = "", **kafka: str
    ) -> None:
        command = [sys.executable, str(PROCESS), str(tagger), *([kill_at] if kill_at else [])]
        self._log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(command, env=environment(given, **kafka), stdout=out, stderr=out)

    def until_ready(self, seconds: float = 120) -> "Process":
        wait_until(lambda: self.text().count("ready\n") or self.code() is not None, seconds, "a ready process")
        assert self.code() is None, self.text()[-2000:]
        return self

    def text(self) -> str:
        return self._log.read_text()

    def code(self) -> int | None:
        return self.process.poll()

    def ended(self, seconds: float = 120) -> int:
        return self.process.wait(seconds)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.ended()


@contextmanager
def ending(processes: Sequence[Process]) -> Iterator[None]:
    """Kill processes that a failed test left."""
    try:
        yield
    finally:
        for process in processes:
            if process.code() is None:
                process.kill()


def origin(message: Message) -> tuple[int, int]:
    """Partition and offset that a record comes from, by its headers."""
    headers: dict[str, Any] = dict(message.headers() or [])
    return int(headers["tagbus.source.partition"]), int(headers["tagbus.source.offset"])


def origins(messages: Iterable[Message]) -> Counter[tuple[int, int]]:
    return Counter(origin(message) for message in messages)


def inputs(address: str, names: dict[str, str]) -> set[tuple[int, int]]:
    """Partition and offset of every record of `content`."""
    return {(message.partition() or 0, message.offset() or 0) for message in consume_all(address, names["content"])}


def outcome(address: str, names: dict[str, str], isolation: str = "read_committed") -> Counter[tuple[int, int]]:
    """How often each input occurs on `tagged` and the dead-letter topic."""
    return origins(
        [
            *consume_all(address, names["tagged"], isolation),
            *consume_all(address, names["dead_letters"], isolation),
        ]
    )


def until_all_out(address: str, names: dict[str, str], count: int, seconds: float = 120) -> None:
    """Wait until `count` distinct inputs are published."""
    found: set[tuple[int, int]] = set()
    consumer = Consumer(
        {"bootstrap.servers": address, "group.id": unique("watch"), "isolation.level": "read_committed"}
        | {"enable.auto.commit": False, "fetch.wait.max.ms": 50}
    )
    try:
        topics = [names["tagged"], names["dead_letters"]]
        every = [
            (topic, p) for topic in topics for p in consumer.list_topics(topic, timeout=60).topics[topic].partitions
        ]
        consumer.assign([TopicPartition(topic, partition, 0) for topic, partition in every])
        end = time.monotonic() + seconds
        while len(found) < count:
            assert time.monotonic() < end, f"{len(found)} of {count} inputs came out within {seconds} s"
            found.update(origins(message for message in consumer.consume(500, 0.05) if not message.error()))
    finally:
        consumer.close()


def exactly_once(address: str, names: dict[str, str]) -> None:
    """The set of input offsets equals the set of source headers on both output topics, each once."""
    expected = inputs(address, names)
    until_all_out(address, names, len(expected), 10)
    found = outcome(address, names)
    assert set(found) == expected, f"lost {len(expected - set(found))}, invented {len(set(found) - expected)}"
    doubled = {place: count for place, count in found.items() if count > 1}
    assert not doubled, f"{len(doubled)} doubled: {list(doubled.items())[:5]}"


def at_least_once(cluster: MockCluster, names: dict[str, str], **sections: dict[str, object]) -> Settings:
    kafka: dict[str, object] = {"delivery": "at_least_once", **sections.pop("kafka", {})}
    return settings(cluster.address, names, kafka=kafka, **sections)
