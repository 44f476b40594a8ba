"""The brokers for tests: `kafka` is Apache Kafka or its substitute, `mock_kafka` librdkafka's mock."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NoReturn

import hypothesis
import pytest

from tagbus.stream.errors import TagbusError
from tagbus.stream.local.apache import SETTINGS, ApacheKafka, available
from tagbus.stream.local.mock import MockCluster
from tests.support import Layout, create_topics, unique

ADDRESS = "TAGBUS_TEST_KAFKA"
CONTAINER = "confluentinc/cp-kafka:7.9.0"  # Kafka 3.9, the newest line that testcontainers starts
NO_KAFKA = "no Kafka for the tests"


# A busy machine takes longer than the 200 ms an example that hypothesis allows.
hypothesis.settings.register_profile("tagbus", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tagbus")


@dataclass(frozen=True)
class Broker:
    """A Kafka that tests may use: its bootstrap address, and where it was found."""

    address: str
    found: str


def pytest_configure() -> None:
    # A shell without job control starts a background command with SIGINT ignored, which children inherit.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.kafka)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # By the reports: where several processes run the tests, this one ran none.
    skipped = terminalreporter.stats.get("skipped", ())
    reasons = {report.longrepr[2] for report in skipped if NO_KAFKA in str(report.longrepr)}
    for reason in sorted(reasons):
        terminalreporter.write_sep("!", "every test against Apache Kafka was SKIPPED", red=True, bold=True)
        terminalreporter.write_line(reason, red=True)


@pytest.fixture(scope="session")
def kafka() -> Iterator[Broker]:
    """A broker with transactions. It is one for the whole run, so tests take unique names for all that they make.

    Found in this order: the address in TAGBUS_TEST_KAFKA; Apache Kafka from Maven Central; a container. Where there is
    none, the test is skipped, and fails when CI=true.
    """
    with ExitStack() as stack:
        yield _find(stack)


@pytest.fixture(scope="session")
def apache() -> Callable[..., ApacheKafka]:
    """The class ApacheKafka, for tests that kill and restart a broker of their own; skipped where it cannot run."""
    reason = available()
    if reason:
        _missing(reason)
    return ApacheKafka


@pytest.fixture
def topics(kafka: Broker) -> Callable[[Mapping[str, Layout]], dict[str, str]]:
    """Make topics on `kafka` from {name: partitions or (partitions, settings)}; returns {name: its unique name}."""

    def make(layouts: Mapping[str, Layout]) -> dict[str, str]:
        names = {name: unique(name) for name in layouts}
        create_topics(kafka.address, {names[name]: layout for name, layout in layouts.items()})
        return names

    return make


@pytest.fixture
def mock_kafka() -> Iterator[MockCluster]:
    """A mock cluster of the test's own: no transactions, no CreateTopics (use its `topic`)."""
    with MockCluster() as cluster:
        yield cluster


def _find(stack: ExitStack) -> Broker:
    address = os.environ.get(ADDRESS)
    if address:
        return Broker(address, ADDRESS)
    reasons = [f"{ADDRESS} is not set"]
    no_java = available()
    if no_java is None:
        try:
            return Broker(stack.enter_context(ApacheKafka()).address, "Maven Central")
        except TagbusError as error:
            no_java = str(error)
    reasons.append(no_java)
    try:
        return Broker(_container(stack), CONTAINER)
    except Exception as error:  # whatever docker and testcontainers raise, the reason is what matters
        reasons.append(f"no container: {type(error).__name__}: {error}"[:300])
    return _missing("; ".join(reasons))


def _container(stack: ExitStack) -> str:
    from testcontainers.community.kafka import KafkaContainer
    from testcontainers.core.docker_client import DockerClient

    DockerClient().client.ping()  # raises immediately if no engine answers
    container = KafkaContainer(CONTAINER).with_kraft()
    for key, value in SETTINGS.items():
        if key.startswith(("offsets.", "transaction.", "group.", "auto.", "log.")):
            container.with_env("KAFKA_" + key.upper().replace(".", "_"), value)
    address: str = stack.enter_context(container).get_bootstrap_server()
    return address


def _missing(reason: str) -> NoReturn:
    text = f"{NO_KAFKA}: {reason}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)
