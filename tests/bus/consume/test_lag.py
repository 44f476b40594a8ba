"""Lag in seconds, as the metrics report it."""

import time

from prometheus_client import REGISTRY

from tagbus.stream import telemetry
from tagbus.stream.bus.processor import Batch, RecordOutcome, Source
from tagbus.stream.bus.worker import observe_lag
from tagbus.stream.contract.codec import Record
from tagbus.stream.local.mock import MockCluster
from tests.bus.harness import events, running, settings, until_all_out
from tests.bus.taggers import Gated
from tests.support import produce, wait_until

A = ("content", 0)


def sample(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"tagbus_{name}", labels)


def test_an_events_own_time_counts_and_else_its_records() -> None:
    # Given an event of 100 s ago in a record of now, one without a time in a record of 50 s ago, and one of neither
    now = time.time()
    times = (now, now - 50, None)
    sources = tuple(Source(*A, offset, Record(b"k", b"v"), known) for offset, known in enumerate(times))
    outcomes = [
        RecordOutcome("tagged", (), event_time=now - 100),
        RecordOutcome("tagged", ()),
        RecordOutcome("tagged", ()),
    ]
    count, total = sample("event_to_commit_seconds_count") or 0, sample("event_to_commit_seconds_sum") or 0
    # When they are committed
    observe_lag(Batch(A, 1, sources, 3, 0.0), outcomes)
    # Then two are observed
    assert (sample("event_to_commit_seconds_count") or 0) - count == 2
    assert round((sample("event_to_commit_seconds_sum") or 0) - total) == 150


def test_the_end_to_end_time_is_from_the_record_and_by_path() -> None:
    now = time.time()
    sources = tuple(Source(*A, offset, Record(b"k", b"v"), now - 20) for offset in range(3))
    outcomes = [
        RecordOutcome("tagged", (), event_time=now - 100, path="tagged"),
        RecordOutcome("tagged", (), path="degraded"),
        RecordOutcome("withdrawn", ()),
    ]
    paths = ("tagged", "degraded", "untagged", "judged")
    before = [sample("end_to_end_seconds_sum", path=path) or 0 for path in paths]
    observe_lag(Batch(A, 1, sources, 3, 0.0), outcomes)
    after = [sample("end_to_end_seconds_sum", path=path) or 0 for path in paths]
    assert [round(now - then) for now, then in zip(after, before, strict=True)] == [20, 20, 20, 0]


def test_ages_are_counted_in_the_first_bucket_that_is_not_below_them() -> None:
    def buckets() -> list[float]:
        bounds = ("0.001", "1.0", "86400.0", "+Inf")
        return [sample("event_to_commit_seconds_bucket", le=bound) or 0 for bound in bounds]

    before = buckets()
    telemetry.EVENT_TO_COMMIT.observe([0.0, 0.001, 0.5, 1.0, 86401.0])
    telemetry.EVENT_TO_COMMIT.observe([])
    assert [after - earlier for after, earlier in zip(buckets(), before, strict=True)] == [2, 4, 4, 5]


def test_the_oldest_uncommitted_record_of_each_partition_shows(
    mock_kafka: MockCluster, mock_topics: dict[str, str]
) -> None:
    produce(mock_kafka.address, "content", events(10, "held"), 0)
    produce(mock_kafka.address, "content", events(10, "free"), 1)
    tagger = Gated(lambda content: content.id.startswith("held"))
    with running(settings(mock_kafka.address, mock_topics, kafka={"delivery": "at_least_once"}), tagger):
        until_all_out(mock_kafka.address, mock_topics, 10)
        wait_until(lambda: (sample("oldest_uncommitted_seconds", partition="0") or 0) > 1, 10)
        wait_until(lambda: sample("oldest_uncommitted_seconds", partition="1") == 0, 120)
        wait_until(lambda: (sample("lag_records", partition="0"), sample("lag_records", partition="1")) == (10, 0), 120)
        tagger.open = True
        wait_until(lambda: sample("oldest_uncommitted_seconds", partition="0") == 0, 120)
    # Another worker reports a revoked partition.
    assert sample("oldest_uncommitted_seconds", partition="0") is None
    assert sample("lag_records", partition="0") is None
