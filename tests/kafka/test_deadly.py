"""Contents that end the process, on Apache Kafka itself: set aside after three starts, and nothing beside them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import read_dead_letter
from tests.bus.harness import Process, Running, ending, event, events, exactly_once, origin, settings, until_all_out
from tests.bus.taggers import Trivial
from tests.conftest import Broker
from tests.support import Layout, consume_all, produce, wait_until

pytestmark = pytest.mark.kafka

Make = Callable[[Mapping[str, Layout]], dict[str, str]]
Names = dict[str, str]
COUNT = 15
DEADLY = 3


@pytest.fixture
def names(topics: Make) -> Names:
    """The topics, with two partitions of content that hold COUNT contents each."""
    return topics({"content": 2, "tagged": 2, "dead_letters": 2, "exemplars": 1, "feedback": 1, "versions": 2})


@pytest.fixture
def given(kafka: Broker, names: Names) -> Settings:
    """Small batches: a partition is quarantined for 10 records."""
    return settings(kafka.address, names, kafka={"session_seconds": 2}, batch={"contents": 5, "in_flight": 2})


def fill(kafka: Broker, names: Names, *deadly: int) -> None:
    for partition in (0, 1):
        records = events(COUNT, f"p{partition}-")
        for offset in deadly:
            name = f"p{partition}-{offset}"
            records[offset] = (name.encode(), event(name, "MARK" if partition == 0 else "harmless"), [])
        produce(kafka.address, names["content"], records, partition)


def marks(given: Settings) -> dict[int, dict[str, int]]:
    """The metadata of the offsets that the group has committed, by partition."""
    consumer = Consumer({"bootstrap.servers": given.kafka.brokers, "group.id": given.kafka.group})
    try:
        asked = [TopicPartition(given.topics.content, partition) for partition in (0, 1)]
        return {found.partition: json.loads(found.metadata or "{}") for found in consumer.committed(asked, 10)}
    finally:
        consumer.close()


def die(given: Settings, log: Path, tagger: str) -> None:
    """A worker that does not survive its contents."""
    process = Process(given, log, tagger)
    with ending([process]):
        assert process.ended() == -9


def test_a_content_that_kills_the_process_is_set_aside_after_three_starts(
    kafka: Broker, names: Names, given: Settings, tmp_path: Path
) -> None:
    # Given two contents in the first batch of a partition that kill the worker that tags them
    fill(kafka, names, 0, DEADLY)
    for _ in range(given.triage.deadly_starts):
        die(given, tmp_path / "log", "deadly:MARK")
    assert marks(given)[0] == {"starts": 3, "alone": 0}
    # When the fourth start sets the first aside and dies of the second, so does the fifth, and the sixth meets no more
    die(given, tmp_path / "log", "deadly:MARK")
    assert marks(given)[0] == {"starts": 2, "alone": DEADLY}
    die(given, tmp_path / "log", "deadly:MARK")
    assert marks(given)[0] == {"starts": 3, "alone": DEADLY}
    last = Process(given, tmp_path / "log", "deadly:MARK")
    with ending([last]):
        until_all_out(kafka.address, names, 2 * COUNT)
        assert last.stop() == 0
    # Then only those two are dead letters, each of their neighbours is tagged, and the count is deleted
    exactly_once(kafka.address, names)
    letters = consume_all(kafka.address, names["dead_letters"])
    assert sorted(origin(letter) for letter in letters) == [(0, 0), (0, DEADLY)]
    for letter in letters:
        reason = read_dead_letter(tuple(letter.headers() or []))
        assert (reason.exception, reason.stage) == ("Untaggable", "tag")
        assert f"the process ended {reason.attempts} times while it was tagged" in reason.message
    assert marks(given) == {0: {}, 1: {}}


def test_two_kills_that_are_no_contents_fault_set_nothing_aside(
    kafka: Broker, names: Names, given: Settings, tmp_path: Path
) -> None:
    # Given a slow worker that is killed twice before it has committed anything
    fill(kafka, names)
    for start in (1, 2):
        slow = Process(given, tmp_path / "log", "trivial:60")
        with ending([slow]):
            wait_until(lambda n=start: marks(given) == {0: {"starts": n}, 1: {"starts": n}}, 120)
            slow.kill()
    # When it is started again, and tags
    quick = Process(given, tmp_path / "log", "trivial:0")
    with ending([quick]):
        until_all_out(kafka.address, names, 2 * COUNT)
        assert quick.stop() == 0
    assert "one record at a time" in quick.text()
    assert "no longer quarantined" in quick.text()
    exactly_once(kafka.address, names)
    assert consume_all(kafka.address, names["dead_letters"]) == []


def test_a_start_that_is_stopped_in_order_does_not_count(kafka: Broker, names: Names, given: Settings) -> None:
    fill(kafka, names)
    for _ in range(2):
        run = Running(given, Trivial(60))
        wait_until(lambda: marks(given) == {0: {"starts": 1}, 1: {"starts": 1}}, 120)
        run.worker.stop()
        run.worker.stop()
        run.join()
        assert marks(given) == {0: {}, 1: {}}
