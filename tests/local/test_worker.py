"""A worker as a child process, on the mock cluster."""

import os
import signal
import subprocess
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tagbus.stream.config import KafkaSettings, Settings
from tagbus.stream.contract.codec import Record, encode_record
from tagbus.stream.contract.events import Content, Tag
from tagbus.stream.errors import DependencyDown, Fatal
from tagbus.stream.local import worker as worker_module
from tagbus.stream.local.mock import MockCluster
from tagbus.stream.local.worker import LocalWorker
from tests.support import consume_all, produce

WORDS = ("content", "tags", "exemplars", "tagged", "content.dlq", "content.versions", "feedback")


@pytest.fixture
def settings(mock_kafka: MockCluster) -> Settings:
    for name in WORDS:
        mock_kafka.topic(name, 1)
    base = Settings.model_construct()
    kafka = {"brokers": mock_kafka.address, "delivery": "at_least_once", "instance": "test"}
    return Settings.model_construct(kafka=base.kafka.model_copy(update=kafka))


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the caller's own environment, which are not meant for this worker."""
    monkeypatch.setenv("TAGBUS_KAFKA__BROKERS", "192.0.2.1:9092")
    monkeypatch.setenv("TAGBUS_MEMORY__KIND", "server")


def write(settings: Settings, topic: str, record: Record) -> None:
    produce(settings.kafka.brokers, topic, [(record.key, record.value, [])])


@pytest.mark.usefixtures("stranger")
def test_it_tags_until_it_is_stopped(settings: Settings) -> None:
    write(settings, "tags", encode_record(Tag(id="p1", name="beekeeping")))
    told: list[int] = []
    with LocalWorker(settings) as worker:
        worker.wait_until_ready(told.append)
        assert told[-1] == 0
        write(settings, "content", encode_record(Content(id="a", title="Bees on the roof")))
        address = settings.kafka.brokers
        consume_all(address, "tagged", until=lambda messages: len(messages) == 1)
        assert worker.stop() == 0
        assert worker.process.poll() == 0
        assert "worker: stopped" in worker.tail()


def test_the_block_leaves_no_process_and_no_log_behind(settings: Settings) -> None:
    with LocalWorker(settings) as worker:
        process, log = worker.process, Path(worker._log.name)
        assert log.exists()
    assert process.poll() is not None
    assert not log.exists()


def test_one_that_ends_before_it_is_ready_says_why(settings: Settings) -> None:
    with (
        LocalWorker(settings, {"TAGBUS_ENCODER__FOLDER": "/nowhere"}) as worker,
        pytest.raises(
            DependencyDown, match=r"did not become ready; the end of its log:\n(.*\n)*.*/nowhere/release.json"
        ),
    ):
        worker.wait_until_ready()


def test_one_that_ends_badly_is_not_called_stopped(settings: Settings) -> None:
    with LocalWorker(settings) as worker:
        os.kill(worker.process.pid, 9)
        with pytest.raises(Fatal, match="the worker ended with code -9"):
            worker.stop()


def test_before_the_block_there_is_no_process(settings: Settings) -> None:
    with pytest.raises(Fatal, match="has not been started"):
        _ = LocalWorker(settings).process


def test_each_has_a_port_of_its_own(settings: Settings) -> None:
    first, second = LocalWorker(settings), LocalWorker(settings)
    assert first.port != second.port


def test_a_signal_while_it_starts_leaves_no_process_behind(
    mock_kafka: MockCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def popen(*arguments: Any, **given: Any) -> "subprocess.Popen[bytes]":
        started.append(whole(*arguments, **given))
        # As it comes between the fork and the end of Popen.
        signal.raise_signal(signal.SIGTERM)
        return started[0]

    def end(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(143)

    whole = subprocess.Popen
    before = signal.signal(signal.SIGTERM, end)
    monkeypatch.setattr(worker_module.subprocess, "Popen", popen)
    try:
        with pytest.raises(SystemExit), LocalWorker(Settings(kafka=KafkaSettings(brokers=mock_kafka.address))):
            pass
    finally:
        signal.signal(signal.SIGTERM, before)
    assert started[0].poll() == -signal.SIGKILL


class Slow(LocalWorker):
    """Its memory has `left` offsets left to read, one number per poll; then it is ready."""

    def __init__(self, settings: Settings, left: list[int]) -> None:
        super().__init__(settings)
        self.left = left

    def _get(self, path: str) -> str | None:
        if path == "/readyz":
            return None if self.left else "ready"
        return f"tagbus_memory_remaining_offsets {self.left.pop(0)}\n"


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock finds a third of the deadline gone."""
    now = iter(range(0, 10_000, int(worker_module.READY_SECONDS // 3)))
    monkeypatch.setattr(worker_module.time, "monotonic", lambda: float(next(now)))
    monkeypatch.setattr(worker_module, "POLL_SECONDS", 0)


@pytest.mark.usefixtures("hours")
def test_one_that_gets_on_is_waited_for(settings: Settings) -> None:
    with Slow(settings, [50, 40, 30, 20, 10]) as worker:
        worker.wait_until_ready()


@pytest.mark.usefixtures("hours")
def test_one_that_gets_no_further_is_given_up(settings: Settings) -> None:
    with Slow(settings, [50, 50, 50, 50, 50]) as worker, pytest.raises(DependencyDown, match="did not become ready"):
        worker.wait_until_ready()
