"""Rebalances on Apache Kafka itself: both group protocols, static members, members killed, frozen and joining."""

import re
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from tagbus.stream.config import Settings
from tagbus.stream.errors import Fatal, Fenced
from tests.bus.harness import Process, Running, ending, events, exactly_once, running, settings, until_all_out
from tests.bus.taggers import Gated, Trivial
from tests.conftest import Broker
from tests.support import produce, wait_until

pytestmark = pytest.mark.kafka

Names = dict[str, str]
COUNT = 1500


@pytest.fixture
def given(kafka: Broker, names: Names) -> Settings:
    """Sessions as short as the broker allows; those of KIP-848 are the broker's."""
    return settings(kafka.address, names, kafka={"session_seconds": 4}, batch={"contents": 50})


def changes(process: Process) -> int:
    """How often the assignment of this process has changed."""
    return process.text().count("rebalance: kind=")


@pytest.mark.parametrize("strategy", ["cooperative-sticky", "range", "consumer"])
def test_members_come_and_go(kafka: Broker, names: Names, given: Settings, tmp_path: Path, strategy: str) -> None:
    kafka_settings: dict[str, object] = (
        {"group_protocol": "consumer"}
        if strategy == "consumer"
        else {"options": {"partition.assignment.strategy": strategy}}
    )
    given = given.model_copy(update={"kafka": given.kafka.model_copy(update=kafka_settings)})
    produce(kafka.address, names["content"], events(COUNT))
    first = Process(given, tmp_path / "first", "random:0.02-0.15")
    processes = [first]
    with ending(processes):
        # Given one at work, when another joins, and the first leaves
        until_all_out(kafka.address, names, 200)
        second = Process(given, tmp_path / "second", "random:0.02-0.15", instance="two")
        processes.append(second)
        second.until_ready()
        produce(kafka.address, names["content"], events(COUNT, "d"))
        until_all_out(kafka.address, names, COUNT)
        assert first.stop() == 0
        until_all_out(kafka.address, names, 2 * COUNT)
        assert second.stop() == 0
    # Then the first gave partitions away, and nothing is lost or doubled
    assert "kind=revoked" in first.text()
    exactly_once(kafka.address, names)


def test_a_partition_added_while_others_are_given_away_doubles_nothing(
    kafka: Broker, names: Names, given: Settings, tmp_path: Path
) -> None:
    count = 800
    # Clients that see a new partition within a moment
    options = {"topic.metadata.refresh.interval.ms": "200"}
    given = given.model_copy(update={"kafka": given.kafka.model_copy(update={"options": options})})
    produce(kafka.address, names["content"], events(count))
    # Given a member that gives partitions away and has seconds of work on them
    first = Process(given, tmp_path / "first", "trivial:4").until_ready()
    processes = [first]
    with ending(processes):
        until_all_out(kafka.address, names, 50)
        second = Process(given, tmp_path / "second", "trivial:0.02", instance="two")
        processes.append(second)
        wait_until(lambda: changes(second), 120, "the second to have joined")
        assert "kind=revoked" not in first.text()
        # When `content` gets one more: the client of the first joins the group again, without those partitions, before
        # it has given them away
        admin = AdminClient({"bootstrap.servers": kafka.address})
        admin.create_partitions([NewPartitions(names["content"], 5)])[names["content"]].result(60)
        until_all_out(kafka.address, names, count)
        wait_until(lambda: "kind=revoked" in first.text(), 120, "the first to have given partitions away")
        assert [process.stop() for process in processes] == [0, 0]
    exactly_once(kafka.address, names)


def test_kills_and_joins_lose_and_double_nothing(kafka: Broker, names: Names, given: Settings, tmp_path: Path) -> None:
    given = given.model_copy(update={"kafka": given.kafka.model_copy(update={"group_protocol": "consumer"})})
    produce(kafka.address, names["content"], events(COUNT))
    processes = [Process(given, tmp_path / f"{i}", "random:0.02-0.1", instance=f"w{i}") for i in range(2)]
    with ending(processes):
        until_all_out(kafka.address, names, 200)
        # When one is killed in its work, others join, and the second is killed
        processes[0].kill()
        processes.append(Process(given, tmp_path / "2", "random:0.02-0.1", instance="w2"))
        processes[-1].until_ready()
        processes[1].kill()
        processes.append(Process(given, tmp_path / "3", "random:0.02-0.1", instance="w3"))
        processes[-1].until_ready()
        until_all_out(kafka.address, names, COUNT)
        assert [process.stop() for process in processes[2:]] == [0, 0]
    exactly_once(kafka.address, names)


def test_a_static_member_that_restarts_moves_no_partition(
    kafka: Broker, names: Names, given: Settings, tmp_path: Path
) -> None:
    static = {"membership": "static", "session_seconds": 10.0}
    given = given.model_copy(update={"kafka": given.kafka.model_copy(update=static)})
    produce(kafka.address, names["content"], events(COUNT))
    # Given two members that have settled
    one = Process(given, tmp_path / "one", "trivial:0.05")
    other = Process(given, tmp_path / "other", "trivial:0.05", instance="two")
    processes = [one, other]
    with ending(processes):
        one.until_ready()
        other.until_ready()
        share = re.compile(r"kind=assigned \S+ partitions=\d")
        wait_until(lambda: share.search(one.text()) and share.search(other.text()), 120, "both to have their share")
        until_all_out(kafka.address, names, 300)
        before = changes(other)
        # When one stops, and when it is killed, and is back within its session
        assert one.stop() == 0
        again = Process(given, tmp_path / "again", "trivial:0.05").until_ready()
        processes.append(again)
        again.kill()
        processes.append(Process(given, tmp_path / "third", "trivial:0.05"))
        processes[-1].until_ready()
        until_all_out(kafka.address, names, COUNT)
        # Then the other has not noticed
        assert changes(other) == before
        assert processes[-1].stop() == other.stop() == 0
    exactly_once(kafka.address, names)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_of_two_processes_with_one_static_membership_one_ends_and_says_so(
    kafka: Broker, names: Names, given: Settings, tmp_path: Path, protocol: str
) -> None:
    # At least once, so that it is the membership that is fenced and not the transactional id.
    static = {"membership": "static", "delivery": "at_least_once", "group_protocol": protocol}
    given = given.model_copy(update={"kafka": given.kafka.model_copy(update=static)})
    older = Process(given, tmp_path / "older").until_ready()
    younger = Process(given, tmp_path / "younger")
    with ending([older, younger]):
        # Classic: the younger takes over. KIP-848: the broker keeps the older, as long as it shows that it is alive.
        ended, left = (older, younger) if protocol == "classic" else (younger, older)
        assert ended.ended() == (Fenced if protocol == "classic" else Fatal).exit_code
        assert "kafka.instance=one" in ended.text()
        assert left.stop() == 0


def test_a_member_that_is_fenced_while_it_drains_ends_and_says_so(kafka: Broker, names: Names, given: Settings) -> None:
    # Given a worker that was stopped and waits for a batch
    static = {"membership": "static", "delivery": "at_least_once"}
    given = given.model_copy(update={"kafka": given.kafka.model_copy(update=static)})
    produce(kafka.address, names["content"], events(1))
    tagger = Gated(lambda _: True)
    older = Running(given, tagger)
    wait_until(lambda: tagger.waiting or older.error, 120, "a batch at the tagger")
    older.worker.stop()
    # When another process takes over its membership
    with running(given, Trivial()):
        older.join()
    # Then the end has its name
    assert isinstance(older.error, Fenced), older.error


def test_a_member_that_was_frozen_beyond_its_session_commits_nothing(
    kafka: Broker, names: Names, given: Settings, tmp_path: Path
) -> None:
    # Given a worker that is stopped for longer than its session while it holds results
    produce(kafka.address, names["content"], events(COUNT))
    frozen = Process(given, tmp_path / "frozen", "trivial:0.3")
    processes = [frozen]
    with ending(processes):
        # It is alone until then: one that joins late would hold nothing that it could lose.
        until_all_out(kafka.address, names, 100)
        frozen.freeze()
        # When another takes its partitions, and it wakes up again
        other = Process(given, tmp_path / "other", "trivial:0.02", instance="two")
        processes.append(other)
        until_all_out(kafka.address, names, COUNT)
        frozen.thaw()
        produce(kafka.address, names["content"], events(200, "d"))
        until_all_out(kafka.address, names, COUNT + 200)
        wait_until(lambda: "kind=lost" in frozen.text() or frozen.code() is not None, 120, "the loss to be noticed")
        assert frozen.stop() in {0, Fenced.exit_code}
        assert other.stop() == 0
    # Then its late batches are not committed, and nothing is lost either
    exactly_once(kafka.address, names)
