"""Exactly once, on Apache Kafka itself: whatever is killed, every input offset comes out once."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from tagbus.stream.config import Settings
from tagbus.stream.errors import Fenced
from tests.bus.harness import (
    Process,
    ending,
    events,
    exactly_once,
    outcome,
    running,
    settings,
    until_all_out,
)
from tests.bus.taggers import Huge, Trivial
from tests.conftest import Broker
from tests.support import Layout, consume_all, produce

pytestmark = pytest.mark.kafka

Make = Callable[[Mapping[str, Layout]], dict[str, str]]
Names = dict[str, str]
COUNT = 3000


@pytest.fixture
def given(kafka: Broker, names: Names) -> Settings:
    """Sessions and transactions as short as the broker allows."""
    return settings(kafka.address, names, kafka={"session_seconds": 2}, batch={"contents": 100})


@pytest.mark.parametrize(("kill_at", "aborted"), [("produced", 1), ("offsets", 1), ("commit", 0)])
def test_a_kill_in_a_transaction_doubles_nothing(
    kafka: Broker, names: Names, given: Settings, tmp_path: Path, kill_at: str, aborted: int
) -> None:
    # Given a worker that is killed in its third transaction
    produce(kafka.address, names["content"], [*events(COUNT), (b"bad", b"\xff", [])])
    processes = [Process(given, tmp_path / "log", 0.02, kill_at)]
    with ending(processes):
        assert processes[0].ended() == -9
        # When it is started again
        processes.append(Process(given, tmp_path / "log"))
        until_all_out(kafka.address, names, COUNT + 1)
        assert processes[1].stop() == 0
    # Then read_committed sees every content once, and the aborted records are there for who wants to see them
    exactly_once(kafka.address, names)
    extra = outcome(kafka.address, names, "read_uncommitted").total() - (COUNT + 1)
    assert extra >= aborted


def test_killed_stopped_and_started_again_nothing_is_lost_or_doubled(
    kafka: Broker, names: Names, given: Settings, tmp_path: Path
) -> None:
    produce(kafka.address, names["content"], events(COUNT))
    processes = [Process(given, tmp_path / "log", 0.1)]
    with ending(processes):
        until_all_out(kafka.address, names, 200)
        processes[-1].kill()
        processes.append(Process(given, tmp_path / "log", 0.1))
        until_all_out(kafka.address, names, 1000)
        assert processes[-1].stop() == 0
        processes.append(Process(given, tmp_path / "log"))
        until_all_out(kafka.address, names, COUNT)
        assert processes[-1].stop() == 0
    exactly_once(kafka.address, names)


def test_of_two_workers_with_one_id_the_older_ends(
    kafka: Broker, names: Names, given: Settings, tmp_path: Path
) -> None:
    produce(kafka.address, names["content"], events(100))
    older = Process(given, tmp_path / "older").until_ready()
    younger = Process(given, tmp_path / "younger")
    with ending([older, younger]):
        younger.until_ready()
        produce(kafka.address, names["content"], events(COUNT, "d"))
        assert older.ended() == Fenced.exit_code == 5
        until_all_out(kafka.address, names, COUNT + 100)
        assert younger.stop() == 0
    exactly_once(kafka.address, names)


def test_a_result_that_the_broker_refuses_becomes_a_dead_letter(kafka: Broker, topics: Make) -> None:
    # Given a topic that takes less than tagbus was told
    names = topics(
        {"content": 1, "tagged": (1, {"max.message.bytes": "50000"}), "dead_letters": 1}
        | {"exemplars": 1, "feedback": 1, "versions": 1}
    )
    produce(kafka.address, names["content"], events(300, size=1000))
    given = settings(kafka.address, names, kafka={"options": {"compression.type": "none"}})
    with running(given, Huge(lambda content: content.id in {"c3", "c5"}, 60_000)):
        until_all_out(kafka.address, names, 300)
    # Then the two are set aside, and their small neighbours in the same request are not
    exactly_once(kafka.address, names)
    letters = consume_all(kafka.address, names["dead_letters"])
    assert sorted(letter.key() or b"" for letter in letters) == [b"c3", b"c5"]


def test_a_group_starts_at_the_earliest_offset(kafka: Broker, names: Names, given: Settings) -> None:
    produce(kafka.address, names["content"], events(10))
    with running(given, Trivial()):
        until_all_out(kafka.address, names, 10)


def test_an_idle_worker_is_ready_and_leaves_its_group(kafka: Broker, names: Names, given: Settings) -> None:
    with running(given, Trivial()) as first:
        first.until_ready()
    # A member that had not left would hold its partitions until its session ends.
    admin = AdminClient({"bootstrap.servers": kafka.address})
    (group,) = admin.describe_consumer_groups([given.kafka.group]).values()
    assert group.result(60).members == []
