"""How a worker ends: a stop drains, a second stop drops, a killed process loses nothing."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import KafkaError

from tagbus.stream import errors
from tagbus.stream.bus.process.tag_processor import TagProcessor
from tagbus.stream.bus.worker import Worker
from tagbus.stream.kafka import clients
from tagbus.stream.local.mock import MockCluster
from tests.bus.harness import (
    Process,
    Running,
    at_least_once,
    ending,
    events,
    exactly_once,
    inputs,
    outcome,
    running,
    until_all_out,
)
from tests.bus.taggers import Down, Gated, Trivial
from tests.support import produce, wait_until

Names = dict[str, str]


def test_a_stop_does_not_wait_for_a_dependency_and_loses_nothing(mock_kafka: MockCluster, mock_topics: Names) -> None:
    produce(mock_kafka.address, "content", events(100))
    tagger = Down()
    given = at_least_once(mock_kafka, mock_topics)
    with running(given, tagger) as run:
        wait_until(lambda: tagger.calls > 2, 120)
        run.worker.stop()
        run.join()
    assert not outcome(mock_kafka.address, mock_topics)
    with running(given, Trivial()):
        until_all_out(mock_kafka.address, mock_topics, 100)
    exactly_once(mock_kafka.address, mock_topics)


def test_a_signal_may_come_at_any_line_of_a_wait(mock_kafka: MockCluster, mock_topics: Names) -> None:
    """A handler runs between two lines of the main thread: a lock that this thread holds then is never released."""

    def interrupted_at(worker: Worker, line: int) -> None:
        left = line

        def trace(_: FrameType, kind: str, __: object) -> Callable[..., Any]:
            nonlocal left
            left -= kind == "line"
            if left == 0:
                left = -1
                worker.stop()
            return trace

        sys.settrace(trace)
        worker._wait(lambda: False)

    given = at_least_once(mock_kafka, mock_topics)
    for line in range(1, 40):
        worker = Worker(given, TagProcessor(given, Trivial()))
        waiting = threading.Thread(target=interrupted_at, args=(worker, line), daemon=True)
        waiting.start()
        waiting.join(120)
        assert not waiting.is_alive(), f"stopped at line {line} of the wait, it stands still"
        worker._consumer.close()


def test_a_stop_finishes_batches_in_flight(mock_kafka: MockCluster, mock_topics: Names) -> None:
    produce(mock_kafka.address, "content", events(100), 0)
    tagger = Trivial(1.0)
    with running(at_least_once(mock_kafka, mock_topics), tagger) as run:
        wait_until(lambda: tagger.seen, 120)
        run.worker.stop()
        run.join()
    assert len(outcome(mock_kafka.address, mock_topics)) == 100


def test_a_second_stop_drops_batches_in_flight(mock_kafka: MockCluster, mock_topics: Names) -> None:
    produce(mock_kafka.address, "content", events(100), 0)
    # A worker that finished it would publish it.
    tagger = Trivial(30)
    with running(at_least_once(mock_kafka, mock_topics), tagger) as run:
        wait_until(lambda: tagger.seen, 120)
        run.worker.stop()
        run.worker.stop()
        run.join()
    assert not outcome(mock_kafka.address, mock_topics)


def test_nothing_is_lost_when_the_process_is_killed_or_stopped(
    mock_kafka: MockCluster, mock_topics: Names, tmp_path: Path
) -> None:
    # The mock's session timeout cannot be below librdkafka's request, so each restart is another member.
    given = at_least_once(mock_kafka, mock_topics, batch={"contents": 20}, kafka={"session_seconds": 2})
    produce(mock_kafka.address, "content", events(2000))
    log = tmp_path / "log"
    processes = [Process(given, log, 0.1)]
    with ending(processes):
        until_all_out(mock_kafka.address, mock_topics, 100)
        processes[-1].kill()
        before = len(outcome(mock_kafka.address, mock_topics))
        processes.append(Process(given, log, 0.1))
        until_all_out(mock_kafka.address, mock_topics, before + 100)
        assert processes[-1].stop() == 0
        processes.append(Process(given, log))
        until_all_out(mock_kafka.address, mock_topics, 2000)
        assert processes[-1].stop() == 0
    assert set(outcome(mock_kafka.address, mock_topics)) == inputs(mock_kafka.address, mock_topics)


@pytest.mark.parametrize("at", ["consume", "close"])
def test_a_client_that_fails_while_the_worker_ends_gives_the_end_its_name(
    mock_kafka: MockCluster, mock_topics: Names, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """librdkafka's fatal errors can come from any call, as a KafkaError that `except Exception` does not catch."""
    fatal = KafkaError(KafkaError.FENCED_INSTANCE_ID, "fenced", fatal=True)
    stopped = threading.Event()

    class Fenced(confluent_kafka.Consumer):
        def consume(self, *args: Any, **kwargs: Any) -> list[confluent_kafka.Message]:
            if at == "consume" and stopped.is_set():
                raise fatal  # type: ignore[misc]
            return super().consume(*args, **kwargs)

        def close(self) -> None:
            # Readers in no group are consumers too.
            member = bool(self.memberid())
            super().close()
            if at == "close" and member:
                raise fatal  # type: ignore[misc]

    monkeypatch.setattr(clients, "Consumer", Fenced)
    produce(mock_kafka.address, "content", events(1))
    tagger = Gated(lambda _: True)
    run = Running(at_least_once(mock_kafka, mock_topics), tagger)
    wait_until(lambda: tagger.waiting or run.error, 120, "a batch at the tagger")
    stopped.set()
    run.worker.stop()
    tagger.open = at == "close"
    run.join()
    assert isinstance(run.error, errors.Fenced)
