"""The worker on librdkafka's mock cluster: at least once, every kind of fault that needs no transaction."""

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from confluent_kafka import KafkaError
from prometheus_client import REGISTRY

from tagbus.stream.contract.codec import Record, decode_tagged
from tagbus.stream.contract.events import Content, TaggedContent
from tagbus.stream.errors import DependencyDown, MemoryLost, UserError
from tagbus.stream.local.mock import MockCluster
from tagbus.stream.tagger import Failure
from tests.bus.harness import (
    Process,
    Running,
    at_least_once,
    ending,
    event,
    events,
    exactly_once,
    origin,
    outcome,
    running,
    until_all_out,
)
from tests.bus.taggers import Down, Gated, Huge, Picky, Trivial
from tests.support import consume_all, produce, wait_until

Names = dict[str, str]


def test_every_record_comes_out_once_with_its_source(mock_kafka: MockCluster, mock_topics: Names) -> None:
    produce(mock_kafka.address, "content", [*events(500), (b"k", b"{not json", [("trace", b"1")])])
    with running(at_least_once(mock_kafka, mock_topics), Trivial()):
        until_all_out(mock_kafka.address, mock_topics, 501)
    exactly_once(mock_kafka.address, mock_topics)
    (letter,) = consume_all(mock_kafka.address, mock_topics["dead_letters"])
    headers = dict(letter.headers() or [])
    assert (letter.key(), letter.value()) == (b"k", b"{not json")
    assert headers["trace"] == b"1"
    assert headers["__streams.errors.exception"] == b"Undecodable"
    assert headers["tagbus.stage"] == b"decode"


def test_batches_are_cut_by_count_and_hold_one_partition_each(mock_kafka: MockCluster, mock_topics: Names) -> None:
    for partition in (0, 1):
        produce(mock_kafka.address, "content", events(250, f"p{partition}-"), partition)
    tagger = Trivial()
    limits = {"contents": 100, "seconds": 0.5, "idle_seconds": 0.5}
    with running(at_least_once(mock_kafka, mock_topics, batch=limits), tagger):
        until_all_out(mock_kafka.address, mock_topics, 500)
    assert all(len({name.split("-")[0] for name in batch}) == 1 for batch in tagger.seen)
    assert sorted(len(batch) for batch in tagger.seen) == [50, 50, 100, 100, 100, 100]


def test_a_batch_that_does_not_fill_goes_after_its_time(mock_kafka: MockCluster, mock_topics: Names) -> None:
    tagger = Trivial()
    given = at_least_once(mock_kafka, mock_topics, batch={"contents": 1000, "seconds": 2.0, "idle_seconds": 2.0})
    with running(given, tagger) as run:
        run.until_ready()
        produce(mock_kafka.address, "content", events(3), 0)
        until_all_out(mock_kafka.address, mock_topics, 3)
    assert tagger.seen == [["c0", "c1", "c2"]]


def test_a_batch_waits_to_fill_only_while_another_is_in_flight(mock_kafka: MockCluster, mock_topics: Names) -> None:
    tagger = Gated(lambda content: content.id == "first-0")
    given = at_least_once(mock_kafka, mock_topics, batch={"contents": 1000, "seconds": 1000.0})
    with running(given, tagger) as run:
        run.until_ready()
        produce(mock_kafka.address, "content", events(1, "first-"), 0)
        wait_until(lambda: tagger.waiting == 1, 120)
        produce(mock_kafka.address, "content", events(3, "later-"), 0)
        produce(mock_kafka.address, "content", events(2, "other-"), 1)
        # Only the end of the first batch can start them.
        tagger.open = True
        until_all_out(mock_kafka.address, mock_topics, 6)


def test_a_release_that_is_being_replaced_does_not_hide_what_ends_the_worker(
    mock_kafka: MockCluster, mock_topics: Names
) -> None:
    class Replaced(Down):
        """A tagger between two releases."""

        def revision(self) -> str | None:
            return None

    tagger = Replaced()
    run = Running(at_least_once(mock_kafka, mock_topics, triage={"duplicates": "skip"}), tagger).until_ready()
    produce(mock_kafka.address, "content", events(1))
    wait_until(lambda: tagger.calls or run.error, 120, "a batch at the tagger")
    run.worker.fail(MemoryLost("the topics of the memory are shorter than it is"))
    run.join()
    assert isinstance(run.error, MemoryLost)


def test_order_is_kept_within_a_partition(mock_kafka: MockCluster, mock_topics: Names) -> None:
    class Uneven(Trivial):
        async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[TaggedContent | Failure]:
            await asyncio.sleep(0.2 if len(self.seen) % 3 == 0 else 0)
            return await super().tag(contents)

    produce(mock_kafka.address, "content", [(None, event(f"c{i}"), []) for i in range(300)], 0)
    with running(at_least_once(mock_kafka, mock_topics, batch={"contents": 10}), Uneven()):
        until_all_out(mock_kafka.address, mock_topics, 300)
    by_partition: dict[int | None, list[int]] = {}
    for message in consume_all(mock_kafka.address, "tagged", until=lambda messages: len(messages) >= 300):
        by_partition.setdefault(message.partition(), []).append(origin(message)[1])
    assert sorted(chain(*by_partition.values())) == list(range(300))
    assert all(found == sorted(found) for found in by_partition.values())


def test_a_slow_batch_holds_up_its_own_partition_only(mock_kafka: MockCluster, mock_topics: Names) -> None:
    produce(mock_kafka.address, "content", events(400, "slow"), 0)
    produce(mock_kafka.address, "content", events(400, "fast"), 1)
    tagger = Gated(lambda content: content.id.startswith("slow"))
    given = at_least_once(mock_kafka, mock_topics, batch={"contents": 20, "in_flight": 3})
    with running(given, tagger) as run:
        until_all_out(mock_kafka.address, mock_topics, 400)
        produce(mock_kafka.address, "content", events(400, "faster"), 1)
        until_all_out(mock_kafka.address, mock_topics, 800)
        assert {partition for partition, _ in outcome(mock_kafka.address, mock_topics)} == {1}
        assert tagger.most == 2  # of three slots one is kept free
        assert run.worker.alive()
        tagger.open = True
        until_all_out(mock_kafka.address, mock_topics, 1200)
    exactly_once(mock_kafka.address, mock_topics)


def test_batches_in_flight_are_bounded_and_the_group_is_served(mock_kafka: MockCluster, mock_topics: Names) -> None:
    produce(mock_kafka.address, "content", events(3000, size=1000))
    tagger = Gated(lambda _: True)
    given = at_least_once(mock_kafka, mock_topics, batch={"contents": 10, "in_flight": 4, "in_flight_bytes": 1_000_000})
    with running(given, tagger) as run:
        wait_until(lambda: tagger.waiting == 4, 120)
        # Paused after 2 s at most: then every turn polls, and the poll interval of librdkafka cannot be missed.
        wait_until(lambda: REGISTRY.get_sample_value("tagbus_paused_partitions") == 2, 120)
        assert tagger.most == 4
        assert (REGISTRY.get_sample_value("tagbus_in_flight_bytes") or 0) <= 1_000_000
        assert run.worker.ready()
        assert run.worker.alive()
        tagger.open = True
        until_all_out(mock_kafka.address, mock_topics, 3000)
    exactly_once(mock_kafka.address, mock_topics)


def test_a_dependency_that_is_down_is_waited_for(mock_kafka: MockCluster, mock_topics: Names) -> None:
    tagger = Down()
    with running(at_least_once(mock_kafka, mock_topics), tagger) as run:
        run.until_ready()
        produce(mock_kafka.address, "content", events(100))
        wait_until(lambda: tagger.calls > 5, 120)
        assert not run.worker.ready()
        assert run.worker.alive()
        assert not outcome(mock_kafka.address, mock_topics)
        tagger.up = True
        until_all_out(mock_kafka.address, mock_topics, 100)
        wait_until(run.worker.ready, 120)
    exactly_once(mock_kafka.address, mock_topics)


def test_a_dependency_that_is_down_for_too_long_ends_the_process_with_code_4(
    mock_kafka: MockCluster, mock_topics: Names, tmp_path: Path
) -> None:
    produce(mock_kafka.address, "content", events(20))
    process = Process(at_least_once(mock_kafka, mock_topics, retry={"deadline_seconds": 1}), tmp_path / "log", "down")
    with ending([process]):
        assert process.ended() == DependencyDown.exit_code == 4
    assert "retry.deadline_seconds = 1" in process.text()
    assert not outcome(mock_kafka.address, mock_topics)


def test_a_topic_of_versions_with_too_few_partitions_is_named(mock_kafka: MockCluster, mock_topics: Names) -> None:
    mock_kafka.topic("few", 1)
    run = Running(at_least_once(mock_kafka, {**mock_topics, "versions": "few"}), Trivial())
    run.join()
    assert isinstance(run.error, UserError)
    assert "topic few has 1 partitions, expected at least the 2 of content" in str(run.error)


def test_content_waits_for_the_gate(mock_kafka: MockCluster, mock_topics: Names) -> None:
    produce(mock_kafka.address, "content", events(10))
    opened = threading.Event()

    async def gate() -> None:
        while not opened.is_set():
            await asyncio.sleep(0.01)

    tagger = Trivial()
    with running(at_least_once(mock_kafka, mock_topics), tagger, gate) as run:
        before = REGISTRY.get_sample_value("tagbus_rebalances_total", {"kind": "assigned"})
        wait_until(run.worker.alive, 120)
        started = time.monotonic()
        wait_until(lambda: time.monotonic() - started > 0.5, 120)
        assert not run.worker.ready()
        assert REGISTRY.get_sample_value("tagbus_rebalances_total", {"kind": "assigned"}) == before
        opened.set()
        until_all_out(mock_kafka.address, mock_topics, 10)


def test_a_gate_that_fails_ends_the_worker_with_its_error(mock_kafka: MockCluster, mock_topics: Names) -> None:
    async def gate() -> None:
        raise DependencyDown("no memory")

    run = Running(at_least_once(mock_kafka, mock_topics), Trivial(), gate)
    run.join()
    assert isinstance(run.error, DependencyDown)


def test_a_topic_that_is_missing_is_named(mock_kafka: MockCluster, mock_topics: Names) -> None:
    names = {**mock_topics, "content": "no-such-topic"}
    run = Running(at_least_once(mock_kafka, names), Trivial())
    run.join()
    assert isinstance(run.error, UserError)
    assert "no-such-topic" in str(run.error)
    assert "tagbus topics create" in str(run.error)


def test_brokers_that_are_away_are_waited_for(mock_kafka: MockCluster, mock_topics: Names) -> None:
    given = at_least_once(mock_kafka, mock_topics, kafka={"options": {"reconnect.backoff.max.ms": "200"}})
    with running(given, Trivial()) as run:
        run.until_ready()
        mock_kafka.down()
        wait_until(lambda: not run.worker.ready(), 120)
        assert run.worker.alive()
        mock_kafka.up()
        produce(mock_kafka.address, "content", events(50))
        until_all_out(mock_kafka.address, mock_topics, 50)
        wait_until(run.worker.ready, 120)
    exactly_once(mock_kafka.address, mock_topics)


def test_offsets_that_are_not_committed_are_committed_again(mock_kafka: MockCluster, mock_topics: Names) -> None:
    mock_kafka.fail(8, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.REBALANCE_IN_PROGRESS)
    produce(mock_kafka.address, "content", events(50))
    given = at_least_once(mock_kafka, mock_topics)
    with running(given, Trivial()):
        until_all_out(mock_kafka.address, mock_topics, 50)
    tagger = Trivial()
    with running(given, tagger) as run:
        run.until_ready()
        produce(mock_kafka.address, "content", events(1, "next"))
        until_all_out(mock_kafka.address, mock_topics, 51)
    assert tagger.seen == [["next0"]]


def test_a_result_too_large_for_the_topic_becomes_a_dead_letter(mock_kafka: MockCluster, mock_topics: Names) -> None:
    produce(mock_kafka.address, "content", events(20))
    given = at_least_once(mock_kafka, mock_topics, batch={"record_bytes": 20_000})
    with running(given, Huge(lambda content: content.id == "c7", 30_000)):
        until_all_out(mock_kafka.address, mock_topics, 20)
    (letter,) = consume_all(mock_kafka.address, mock_topics["dead_letters"])
    headers = dict(letter.headers() or [])
    assert letter.value() == event("c7", "x" * 10)
    assert headers["tagbus.stage"] == b"publish"
    assert b"record_bytes = 20000" in (headers["__streams.errors.message"] or b"")


def test_a_refusal_by_the_tagger_becomes_a_dead_letter(mock_kafka: MockCluster, mock_topics: Names) -> None:
    produce(mock_kafka.address, "content", events(20))
    with running(at_least_once(mock_kafka, mock_topics), Picky(lambda content: content.id == "c3")):
        until_all_out(mock_kafka.address, mock_topics, 20)
    (letter,) = consume_all(mock_kafka.address, mock_topics["dead_letters"])
    assert letter.value() == event("c3", "x" * 10)
    assert dict(letter.headers() or [])["tagbus.stage"] == b"encode"


def test_a_withdrawal_erases_tags_both_exemplars_and_decisions(mock_kafka: MockCluster, mock_topics: Names) -> None:
    produce(mock_kafka.address, "content", [(b"gone", event("gone"), []), (b"gone", None, [])])
    given = at_least_once(mock_kafka, mock_topics, tagger={"write_back": 0.5})
    with running(given, Trivial()):
        until_all_out(mock_kafka.address, mock_topics, 2)
    tagged = [(m.key(), m.value() is None) for m in consume_all(mock_kafka.address, "tagged")]
    exemplars = consume_all(mock_kafka.address, "exemplars")
    last = {message.key(): message.value() for message in exemplars}
    assert tagged == [(b"gone", False), (b"gone", True)]
    assert last == {b"gone/people": None, b"gone/machine": None}
    # And people's decisions
    (message,) = consume_all(mock_kafka.address, "feedback")
    assert (message.key(), message.value()) == (b"gone", None)


def test_confident_results_are_written_back_as_machine_exemplars(mock_kafka: MockCluster, mock_topics: Names) -> None:
    produce(mock_kafka.address, "content", [(b"c", event("c", title="T"), [])])
    with running(at_least_once(mock_kafka, mock_topics, tagger={"write_back": 0.9}), Trivial()):
        until_all_out(mock_kafka.address, mock_topics, 1)
    (exemplar,) = consume_all(mock_kafka.address, "exemplars")
    found = json.loads(exemplar.value() or b"")
    assert exemplar.key() == b"c/machine"
    assert (found["source"], found["title"], found["text"], found["accepted"]) == (
        "machine",
        "T",
        "Some text.",
        ["t1"],
    )
    (message,) = consume_all(mock_kafka.address, "tagged")
    assert isinstance(decode_tagged(Record(message.key(), message.value())), TaggedContent)


def test_a_spare_member_is_ready(mock_kafka: MockCluster, mock_topics: Names) -> None:
    mock_kafka.topic("one-partition", 1)
    given = at_least_once(mock_kafka, {**mock_topics, "content": "one-partition"})
    other = given.model_copy(update={"kafka": given.kafka.model_copy(update={"instance": "two"})})
    with running(given, Trivial()) as first, running(other, Trivial()) as second:
        first.until_ready()
        second.until_ready()
