"""A hanging transaction of another program: nothing after it is read, and `check` reports its position."""

from collections.abc import Callable, Mapping

import pytest
from confluent_kafka import Producer

from tagbus.stream.kafka.admin import open_transactions
from tests.cli.harness import Cli
from tests.cli.records.test_publish import settings
from tests.conftest import Broker
from tests.support import Layout, unique

pytestmark = pytest.mark.kafka

COMPACT = {"cleanup.policy": "compact"}


def test_check_says_where_it_is(
    kafka: Broker,
    tagbus: Cli,
    topics: Callable[[Mapping[str, Layout]], dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(open_transactions, "PATIENCE_SECONDS", 0.2)
    memory = dict.fromkeys(("tags", "exemplars", "knowledge", "versions", "releases"), (1, COMPACT))
    names = topics({"content": 1, "tagged": 1, "dead_letters": 1, "feedback": 1, **memory})
    given = settings(kafka, names)
    other = Producer({"bootstrap.servers": kafka.address, "transactional.id": unique("other")})
    other.init_transactions(60)
    other.begin_transaction()
    for _ in range(3):
        other.produce(names["content"], b"{}")
    other.flush(60)

    answer = tagbus("check", settings=given)
    (line,) = (line for line in answer.lines if "a transaction is open" in line)
    assert line.startswith(f"unsure  {names['content']}:0 ")
    assert "at offset 0: nothing after it is read" in line
    assert answer.code == 0

    other.abort_transaction(60)
    assert "a transaction is open" not in tagbus("check", settings=given).out
