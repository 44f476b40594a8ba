"""The publishing side when Kafka refuses, on librdkafka's mock cluster: aborts, resends and ends.

The mock cluster implements the calls of transactions but not their effect: it proves what tagbus does. The effects are
shown on Apache Kafka (tests/kafka).
"""

import threading
from collections.abc import Callable
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import KafkaError

from tagbus.stream.bus import worker
from tagbus.stream.bus.publish import transaction
from tagbus.stream.bus.publish.transaction import ErrorAction, action_for
from tagbus.stream.config import Settings
from tagbus.stream.errors import DependencyDown, Fatal, Fenced, UserError
from tagbus.stream.kafka import clients
from tagbus.stream.local.mock import MockCluster
from tests.bus.harness import (
    TOPICS,
    Process,
    Running,
    ending,
    events,
    outcome,
    running,
    settings,
    until_all_out,
)
from tests.bus.taggers import Trivial
from tests.support import consume_all, produce, wait_until

PRODUCE, INIT, ADD_PARTITIONS, ADD_OFFSETS, END, COMMIT_OFFSETS = 0, 22, 24, 25, 26, 28
COUNT = 50
ONCE = ["begin", "produce", "offsets", "commit"]
NAMES = {"tagged": "tagged", "dead_letters": "dead_letters"}


class Calls(list[str]):
    """The calls of the producer, in order; `at` runs before the first call of that name."""

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[str, Callable[[], None]] = {}

    def note(self, name: str) -> None:
        self.append(name)
        self.at.pop(name, lambda: None)()

    def seen(self) -> list[str]:
        """The calls from the first transaction on, repeated ones once."""
        names = [name for name, _ in groupby(self)]
        return names[names.index("begin") :]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The calls of the worker's producer."""
    made = Calls()

    class Recorded(confluent_kafka.Producer):
        def begin_transaction(self) -> None:
            made.note("begin")
            super().begin_transaction()

        def produce(self, *arguments: Any, **named: Any) -> None:
            made.note("produce")
            super().produce(*arguments, **named)

        def send_offsets_to_transaction(self, *arguments: Any) -> None:
            made.note("offsets")
            super().send_offsets_to_transaction(*arguments)

        def commit_transaction(self, timeout: float = -1) -> None:
            made.note("commit")
            super().commit_transaction(timeout)

        def abort_transaction(self, timeout: float = -1) -> None:
            made.note("abort")
            super().abort_transaction(timeout)

    monkeypatch.setattr(clients, "Producer", Recorded)
    return made


@pytest.fixture
def given(mock_kafka: MockCluster, mock_topics: dict[str, str]) -> Settings:
    """A worker that makes one batch, and so one transaction, of COUNT existing records."""
    produce(mock_kafka.address, "content", events(COUNT), 0)
    kafka: dict[str, object] = {"options": {"reconnect.backoff.max.ms": "200"}}
    return settings(mock_kafka.address, mock_topics, kafka=kafka, batch={"contents": COUNT, "seconds": 30})


def published(calls: Calls, given: Settings) -> list[str]:
    """Run until the batch is committed. In every case it is tagged once and committed once."""
    tagger = Trivial()
    with running(given, tagger) as run:
        wait_until(lambda: run.error or (calls and calls[-1] == "commit" and run.worker.ready()), 120, "the commit")
        assert run.error is None
        until_all_out(given.kafka.brokers, NAMES, COUNT)
    assert sorted(chain(*tagger.seen)) == sorted(f"c{i}" for i in range(COUNT))
    return calls.seen()


def ended(given: Settings) -> BaseException:
    """Run until the worker ends on its own, and return why. Its batch was tagged at most once."""
    tagger = Trivial()
    run = Running(given, tagger)
    run.join()
    assert len(tagger.seen) <= 1
    assert run.error is not None
    return run.error


def test_a_batch_is_one_transaction(given: Settings, calls: Calls) -> None:
    assert published(calls, given) == ONCE


def test_a_stale_member_aborts_and_publishes_the_kept_results_again(
    mock_kafka: MockCluster, given: Settings, calls: Calls
) -> None:
    # KIP-848 moves the member's epoch with every rebalance, even if its partitions stay.
    stale = (KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.STALE_MEMBER_EPOCH)
    mock_kafka.fail(COMMIT_OFFSETS, *stale)
    assert published(calls, given) == [*["begin", "produce", "offsets", "abort"] * 3, *ONCE]


def test_what_passes_is_waited_for_and_nothing_is_aborted(
    mock_kafka: MockCluster, given: Settings, calls: Calls
) -> None:
    mock_kafka.fail(INIT, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
    mock_kafka.fail(ADD_PARTITIONS, KafkaError.CONCURRENT_TRANSACTIONS, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
    mock_kafka.fail(PRODUCE, KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.NOT_LEADER_FOR_PARTITION)
    mock_kafka.fail(ADD_OFFSETS, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR)
    mock_kafka.fail(COMMIT_OFFSETS, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE)
    mock_kafka.fail(END, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR)
    assert published(calls, given) == ONCE
    assert set(outcome(mock_kafka.address, NAMES).values()) == {1}


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (PRODUCE, KafkaError.INVALID_TXN_STATE),
        (END, KafkaError.TRANSACTION_ABORTABLE),
    ],
)
def test_an_abortable_error_aborts_and_the_same_results_go_out_again(
    mock_kafka: MockCluster, given: Settings, calls: Calls, request_: int, code: int
) -> None:
    mock_kafka.fail(request_, code)
    found = published(calls, given)
    assert "abort" in found
    assert found[-len(ONCE) :] == ONCE


def test_what_a_broker_finds_too_large_is_sent_alone(mock_kafka: MockCluster, given: Settings, calls: Calls) -> None:
    # The request is refused as a whole; alone each of its records passes, so nothing is set aside.
    mock_kafka.fail(PRODUCE, KafkaError.MSG_SIZE_TOO_LARGE)
    found = published(calls, given)
    assert "abort" in found
    assert found[-len(ONCE) :] == ONCE
    assert not consume_all(mock_kafka.address, "dead_letters")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (END, KafkaError.INVALID_PRODUCER_EPOCH),
        (PRODUCE, KafkaError.INVALID_PRODUCER_EPOCH),
        (COMMIT_OFFSETS, KafkaError.FENCED_INSTANCE_ID),
    ],
)
def test_a_worker_that_was_replaced_ends(
    mock_kafka: MockCluster, given: Settings, calls: Calls, request_: int, code: int
) -> None:
    mock_kafka.fail(request_, code)
    assert isinstance(ended(given), Fenced)
    # Not sent again; the abort is for readers of committed records, and fails if the process is fenced.
    assert calls.seen().count("produce") == 1
    assert calls[-1] == "abort"


@pytest.mark.parametrize(
    ("request_", "code", "missing"),
    [
        (INIT, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "Write on transactional id {id}-one"),
        (PRODUCE, KafkaError.TOPIC_AUTHORIZATION_FAILED, "Write on topic tagged"),
        (ADD_PARTITIONS, KafkaError.TOPIC_AUTHORIZATION_FAILED, "Write on topic tagged"),
        (ADD_OFFSETS, KafkaError.GROUP_AUTHORIZATION_FAILED, "Read on group {group}"),
        (COMMIT_OFFSETS, KafkaError.GROUP_AUTHORIZATION_FAILED, "Read on group {group}"),
        (END, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "Write on transactional id {id}-one"),
    ],
)
def test_a_refusal_names_the_missing_right_and_leaves_no_transaction_open(
    mock_kafka: MockCluster, given: Settings, calls: Calls, request_: int, code: int, missing: str
) -> None:
    mock_kafka.fail(request_, *[code] * 20)
    error = ended(given)
    assert isinstance(error, UserError)
    assert missing.format(id=given.kafka.transactional_id, group=given.kafka.group) in str(error)
    # The step after a refused one may report the state of the transaction alone; the next try reports the refusal.
    assert not calls or (calls[-1] == "abort" and calls.seen().count("produce") <= 2)


def test_a_commit_that_times_out_is_called_again_and_never_rewound(
    mock_kafka: MockCluster, given: Settings, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a broker that accepts the commit and answers after the call's timeout: the outcome is unknown meanwhile
    monkeypatch.setattr(transaction, "STEP_SECONDS", 0.1)
    calls.at["commit"] = lambda: mock_kafka.slow(0.3)
    assert published(calls, given) == ONCE
    # Then the same call is repeated until it answers, and that was the only transaction
    assert calls.count("commit") > 2


@pytest.mark.parametrize("step", ["produce", "commit"])
def test_a_broker_that_goes_away_within_a_transaction_is_waited_for(
    mock_kafka: MockCluster, given: Settings, calls: Calls, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(transaction, "STEP_SECONDS", 0.2)
    calls.at[step] = mock_kafka.down
    tagger = Trivial()
    with running(given, tagger) as run:
        wait_until(lambda: run.error or step in calls, 120)
        wait_until(lambda: run.error or not run.worker.ready(), 120)
        assert run.worker.alive()
        mock_kafka.up()
        until_all_out(mock_kafka.address, NAMES, COUNT)
        wait_until(lambda: run.error or run.worker.ready(), 120)
    assert len(tagger.seen) == 1
    assert calls.seen() == ONCE


def test_a_stop_waits_for_no_transaction_beyond_its_deadline(
    mock_kafka: MockCluster, given: Settings, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "JOIN_SECONDS", 0.5)
    # Given a broker that is lost for good in the middle of a transaction, whose offsets wait for it without end
    calls.at["offsets"] = mock_kafka.down
    given = given.model_copy(update={"batch": given.batch.model_copy(update={"drain_seconds": 0.5})})
    before = set(threading.enumerate())
    run = Running(given, Trivial())
    wait_until(lambda: run.error or "offsets" in calls, 120)
    # When the worker is stopped, then it ends nevertheless
    run.worker.stop()
    run.join()
    assert run.error is None
    mock_kafka.up()
    wait_until(lambda: set(threading.enumerate()) <= before, 120, "the end of its threads")


def test_a_transaction_that_hangs_although_brokers_answer_ends_the_worker(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "STEP_SECONDS", 0.2)
    with MockCluster(brokers=2) as cluster:
        # Given a group whose coordinator is lost for good before it receives the offsets, and another broker
        topics = {name: name for name in TOPICS}
        for name in topics:
            cluster.topic(name, 2)
        produce(cluster.address, "content", events(COUNT), 0)
        given = settings(cluster.address, topics, kafka={"transaction_seconds": 3}, batch={"contents": COUNT})
        cluster.coordinator("group", given.kafka.group, 2)
        cluster.coordinator("transaction", f"{given.kafka.transactional_id}-one", 1)
        calls.at["offsets"] = lambda: cluster.down(2)
        # When the worker runs, then it ends: librdkafka would wait forever, with its partitions stalled
        error = ended(given)
        assert isinstance(error, DependencyDown)
        assert "has hung for 3 s" in str(error)
        assert calls[-1] == "offsets"


@pytest.mark.parametrize(
    ("code", "ending_"),
    [(KafkaError.INVALID_PRODUCER_EPOCH, Fenced), (KafkaError.INVALID_TXN_STATE, Fatal)],
)
def test_the_process_ends_with_the_code_of_its_error(
    mock_kafka: MockCluster, given: Settings, tmp_path: Path, code: int, ending_: type[Fatal]
) -> None:
    mock_kafka.fail(END, code)
    process = Process(given, tmp_path / "log")
    with ending([process]):
        assert process.ended() == ending_.exit_code
    assert "Traceback" not in process.text()


def test_at_least_once_commits_nothing_that_was_not_confirmed(mock_kafka: MockCluster, given: Settings) -> None:
    given = given.model_copy(update={"kafka": given.kafka.model_copy(update={"delivery": "at_least_once"})})
    mock_kafka.fail(PRODUCE, KafkaError.TOPIC_AUTHORIZATION_FAILED)
    error = ended(given)
    assert isinstance(error, UserError)
    assert "Write on topic tagged" in str(error)
    # One of the batch's requests may have been accepted: the next worker reads the whole batch again, and duplicates
    # it.
    reader = confluent_kafka.Consumer({"bootstrap.servers": mock_kafka.address, "group.id": given.kafka.group})
    (committed,) = reader.committed([confluent_kafka.TopicPartition("content", 0)], timeout=10)
    reader.close()
    assert committed.offset == 0  # where the worker records its start (crash_loop.py)


def test_a_fatal_error_of_an_idempotent_producer_ends_the_worker(mock_kafka: MockCluster, given: Settings) -> None:
    given = given.model_copy(update={"kafka": given.kafka.model_copy(update={"delivery": "at_least_once"})})
    mock_kafka.fail(PRODUCE, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
    assert type(ended(given)) is Fatal


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KafkaError(KafkaError._TIMED_OUT, retriable=True), ErrorAction.CALL_AGAIN),
        (KafkaError(KafkaError.STALE_MEMBER_EPOCH, txn_requires_abort=True), ErrorAction.ABORT),
        (KafkaError(KafkaError._INCONSISTENT, txn_requires_abort=True), ErrorAction.ABORT),
        (KafkaError(KafkaError._FENCED, fatal=True), ErrorAction.END),
        (KafkaError(KafkaError.INVALID_TXN_STATE, fatal=True), ErrorAction.END),
        (KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED, txn_requires_abort=True), ErrorAction.END),
        (KafkaError(KafkaError._STATE), ErrorAction.END),
    ],
)
def test_errors_are_told_apart_as_librdkafka_documents(error: KafkaError, expected: ErrorAction) -> None:
    assert action_for(error) is expected
