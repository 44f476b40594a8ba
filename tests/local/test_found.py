"""How the tests find their Kafka: an address, Maven Central, a container; else a loud skip, a failure when CI=true."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tagbus.stream.local.mock import MockCluster
from tests.conftest import Broker
from tests.support import Layout, consume_all, unique, wait_until

HERE = Path(__file__)


def test_the_broker_that_was_found_answers(kafka: Broker) -> None:
    assert Producer({"bootstrap.servers": kafka.address}).list_topics(timeout=30).brokers


def test_an_open_transaction_is_not_read_and_its_markers_do_not_hang_a_reader(
    kafka: Broker, topics: Callable[[Mapping[str, Layout]], dict[str, str]]
) -> None:
    names = topics({"tagged": (2, {"cleanup.policy": "compact"}), "content": 1})
    producer = Producer({"bootstrap.servers": kafka.address, "transactional.id": unique("t")})
    producer.init_transactions(30)
    for end in (producer.commit_transaction, producer.abort_transaction, None):
        producer.begin_transaction()
        for partition in (0, 1):
            producer.produce(names["tagged"], b"v", b"k", partition)
        producer.flush(30)
        if end:
            end(30)

    assert len(consume_all(kafka.address, names["tagged"])) == 2
    assert len(consume_all(kafka.address, names["tagged"], "read_uncommitted")) == 6
    assert consume_all(kafka.address, names["content"]) == []
    producer.abort_transaction(30)


def run_without_java(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The first test above in a pytest of its own, which finds neither Java nor an engine for containers."""
    clean = {name: value for name, value in os.environ.items() if name not in ("CI", "TAGBUS_TEST_KAFKA")}
    nowhere = {"PATH": str(folder), "DOCKER_HOST": "tcp://127.0.0.1:1", "TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "was_found_answers", str(HERE)],
        env=clean | nowhere | environment,
        cwd=HERE.parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_without_any_it_skips_and_says_so_loudly(tmp_path: Path) -> None:
    done = run_without_java(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "every test against Apache Kafka was SKIPPED" in done.stdout
    assert "java is not on the path" in done.stdout
    assert "1 skipped" in done.stdout


def test_without_any_it_fails_in_ci(tmp_path: Path) -> None:
    done = run_without_java(tmp_path, CI="true")
    assert done.returncode == 1, done.stdout
    assert "java is not on the path" in done.stdout


def test_an_address_in_the_environment_comes_first(tmp_path: Path, mock_kafka: MockCluster) -> None:
    done = run_without_java(tmp_path, TAGBUS_TEST_KAFKA=mock_kafka.address, CI="true")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_waiting_ends_with_the_name_of_what_was_waited_for() -> None:
    answers = iter([0, None, "", "here"])
    assert wait_until(lambda: next(answers), 120, "an answer") == "here"
    with pytest.raises(AssertionError, match="an answer: not within 0 s, the last value was False"):
        wait_until(lambda: False, 0, "an answer")
