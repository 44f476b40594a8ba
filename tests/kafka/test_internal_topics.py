"""A broker that cannot make the topics of groups and transactions: Kafka's defaults want three replicas of them."""

import logging
from collections.abc import Callable, Iterator

import pytest

from tagbus.stream.bus.consume import brokers
from tagbus.stream.bus.publish import transaction
from tagbus.stream.local.apache import ApacheKafka
from tests.bus.harness import running, settings
from tests.bus.taggers import Trivial
from tests.cli.harness import Cli
from tests.support import create_topics, wait_until

pytestmark = pytest.mark.kafka

GROUPS = "offsets.topic.replication.factor"
TRANSACTIONS = "transaction.state.log.replication.factor"
COMPACT = (1, {"cleanup.policy": "compact"})


@pytest.fixture(scope="module")
def broker(apache: Callable[..., ApacheKafka]) -> Iterator[ApacheKafka]:
    with apache(settings={GROUPS: "3", TRANSACTIONS: "3"}) as started:
        plain = dict.fromkeys(("content", "tagged", "content.dlq", "feedback"), 1)
        memory = dict.fromkeys(("tags", "exemplars", "knowledge", "releases", "content.versions"), COMPACT)
        create_topics(started.address, {**plain, **memory})
        yield started


@pytest.mark.parametrize(
    ("delivery", "expected"), [("exactly_once", [GROUPS, TRANSACTIONS]), ("at_least_once", [GROUPS])]
)
def test_check_names_the_settings_of_the_broker(
    broker: ApacheKafka, tagbus: Cli, delivery: str, expected: list[str]
) -> None:
    given = {"KAFKA__BROKERS": broker.address, "KAFKA__DELIVERY": delivery, "TOPICS__PARTITIONS": "1"}
    answer = tagbus("check", settings=given)
    assert answer.code == 3
    wrong = [line for line in answer.lines if line.startswith("wrong")]
    assert len(wrong) == len(expected)
    for line, setting in zip(wrong, expected, strict=True):
        assert f"{setting} is 3, more than the 1 brokers there are: no " in line


@pytest.mark.parametrize(
    ("delivery", "words"),
    [
        ("at_least_once", "the group has not admitted this worker"),
        ("exactly_once", "no broker coordinates transactions"),
    ],
)
def test_a_worker_says_what_it_waits_for(
    broker: ApacheKafka, delivery: str, words: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(brokers, "JOIN_SECONDS", 1.0)
    monkeypatch.setattr(transaction, "STEP_SECONDS", 1.0)
    caplog.set_level(logging.WARNING)
    with running(settings(broker.address, kafka={"delivery": delivery}), Trivial()) as run:
        wait_until(lambda: words in caplog.text, 120, words)
        assert "`tagbus check` says why" in caplog.text
        assert not run.worker.ready()
