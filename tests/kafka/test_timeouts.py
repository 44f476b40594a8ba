"""Timeouts that the brokers refuse: a setting of ours, out of the range of a setting of theirs."""

from collections.abc import Callable, Mapping

import pytest

from tagbus.stream.errors import UserError
from tests.bus.harness import Running, settings
from tests.bus.taggers import Trivial
from tests.cli.harness import Cli
from tests.conftest import Broker
from tests.support import Layout

pytestmark = pytest.mark.kafka

# Kafka's own limits: half an hour, and a quarter of an hour.
SESSION = "kafka.session_seconds=2000 is refused by the brokers .* expected .*group.max.session.timeout.ms"
TRANSACTION = "kafka.transaction_seconds=1000 is refused by the brokers .* expected .*transaction.max.timeout.ms"


@pytest.mark.parametrize(
    ("section", "words"),
    [({"session_seconds": 2000}, SESSION), ({"transaction_seconds": 1000}, TRANSACTION)],
    ids=["session", "transaction"],
)
def test_a_worker_ends_and_names_the_setting(
    kafka: Broker, topics: Callable[[Mapping[str, Layout]], dict[str, str]], section: dict[str, object], words: str
) -> None:
    names = topics(dict.fromkeys(("content", "tagged", "dead_letters", "exemplars", "feedback", "versions"), 1))
    run = Running(settings(kafka.address, names, kafka=section), Trivial())
    run.join()
    with pytest.raises(UserError, match=words):
        raise run.error or AssertionError("no error")


def test_check_names_the_settings_and_the_limits(kafka: Broker, tagbus: Cli) -> None:
    given = {"KAFKA__BROKERS": kafka.address, "KAFKA__SESSION_SECONDS": "2000", "KAFKA__TRANSACTION_SECONDS": "1000"}
    lines = tagbus("check", settings=given).lines
    session = (
        "kafka.session_seconds=2000, expected 1 to 1800 (group.min.session.timeout.ms, group.max.session.timeout.ms)"
    )
    transaction = "kafka.transaction_seconds=1000, expected at most 900 (transaction.max.timeout.ms)"
    assert [line.split(None, 2)[2] for line in lines if line.startswith("wrong   broker ")] == [session, transaction]
    # With the group protocol of KIP-848 the session is the broker's, and at least once there is no transaction.
    other = tagbus("check", settings=given, KAFKA__GROUP_PROTOCOL="consumer", KAFKA__DELIVERY="at_least_once")
    assert not [line for line in other.lines if line.startswith("wrong   broker ")]
