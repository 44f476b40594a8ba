"""Batches in flight: order, room, ownership. No Kafka here."""

import threading

from hypothesis import given, strategies

from tagbus.stream.bus.in_flight import InFlight, InFlightBatch
from tagbus.stream.bus.processor import Batch, Source
from tagbus.stream.contract.codec import Record
from tagbus.stream.errors import Untaggable
from tagbus.stream.kafka.message import Partition
from tests.support import wait_until

A, B = ("content", 0), ("content", 1)


def start(in_flight: InFlight, partition: Partition, offset: int = 0, size: int = 10) -> InFlightBatch:
    source = Source(*partition, offset, Record(None, b""))
    return in_flight.start(Batch(partition, in_flight.epoch(partition) or 0, (source,), size, 0.0))


def assigned(number: int = 4, size: int = 1000) -> InFlight:
    in_flight = InFlight(number, size)
    in_flight.assign([A, B])
    return in_flight


@given(strategies.permutations(range(6)))
def test_a_partition_is_published_in_order_however_its_batches_finish(order: list[int]) -> None:
    in_flight = assigned(10)
    started = [start(in_flight, A, offset) for offset in range(6)]
    published: list[int] = []
    for index in order:
        in_flight.complete(started[index], [])
        for entry in in_flight.finished(0):
            published.append(entry.batch.sources[0].offset)
            in_flight.done(entry)
    assert published == list(range(6))


def test_a_slow_batch_holds_up_its_own_partition_only() -> None:
    in_flight = assigned()
    start(in_flight, A, 0)
    after, other = start(in_flight, A, 1), start(in_flight, B, 0)
    in_flight.complete(after, [])
    in_flight.complete(other, [])
    assert in_flight.finished(0) == [other]


def test_one_place_is_kept_from_a_partition_that_fills_all_others() -> None:
    in_flight = assigned(3)
    start(in_flight, A)
    assert in_flight.room(A, 10)
    start(in_flight, A)
    assert not in_flight.room(A, 10)
    assert in_flight.room(B, 10)
    start(in_flight, B)
    assert not in_flight.room(B, 10)
    assert in_flight.crowded()


def test_retagged_batches_keep_their_order_in_a_new_epoch() -> None:
    in_flight = InFlight(3, 1000)
    in_flight.assign([A, B])
    first, second, other = start(in_flight, A), start(in_flight, A), start(in_flight, B)
    in_flight.complete(second, [])
    reason = Untaggable("publish", ())
    again = in_flight.restart(first, {0: reason})
    assert [entry.batch.sources for entry in again] == [first.batch.sources, second.batch.sources]
    assert [dict(entry.batch.refused) for entry in again] == [{0: reason}, {}]
    # Earlier decisions do not count, and new batches are of the same epoch.
    assert [in_flight.owns(entry) for entry in (first, second, other, *again)] == [False, False, True, True, True]
    assert {entry.batch.epoch for entry in (*again, start(in_flight, A))} == {in_flight.epoch(A)}
    assert in_flight.finished(0) == []
    # Earlier refusals stay.
    assert dict(in_flight.restart(again[0], {2: reason})[0].batch.refused) == {0: reason, 2: reason}
    # A batch that is no longer ours is not tagged again.
    assert in_flight.restart(first, {0: reason}) == []


def test_what_is_sent_is_in_flight_until_its_offsets_are_committed_and_is_not_sent_again() -> None:
    in_flight = assigned()
    first, second = start(in_flight, A, 0), start(in_flight, A, 1)
    in_flight.complete(first, [])
    in_flight.sent([first])
    in_flight.complete(second, [])
    assert in_flight.finished(0) == [second]
    assert in_flight.first(A) is first
    # Kafka refuses a result of the second: the first has gone out, and its offsets still follow.
    (again,) = in_flight.restart(second, {0: Untaggable("publish", ())})
    assert again.batch.sources == second.batch.sources
    assert [in_flight.owns(entry) for entry in (first, second, again)] == [True, False, True]
    assert in_flight.revoke([A]).untouched == {}


def test_a_worker_whose_batches_are_all_sent_is_idle_and_has_room() -> None:
    in_flight = InFlight(1, 1000)
    in_flight.assign([A])
    for offset in range(10):
        assert in_flight.idle()
        assert in_flight.room(A, 10)
        entry = start(in_flight, A, offset)
        assert not in_flight.idle()
        in_flight.complete(entry, [])
        in_flight.sent([entry])
    assert in_flight.busy()
    # Their bytes are kept until offsets are committed.
    assert not in_flight.room(A, 901)


def test_waiting_for_batches_ends_when_it_is_interrupted() -> None:
    in_flight, news = assigned(), threading.Event()
    found: list[list[InFlightBatch]] = []
    thread = threading.Thread(target=lambda: found.append(in_flight.finished(30, news.is_set)))
    thread.start()
    news.set()
    in_flight.wake()
    thread.join(20)
    assert found == [[]]


def test_a_partition_alone_may_use_every_place() -> None:
    in_flight = InFlight(2, 1000)
    in_flight.assign([A])
    start(in_flight, A)
    assert in_flight.room(A, 10)


def test_bytes_are_bounded_and_one_batch_always_goes() -> None:
    in_flight = assigned(10, 100)
    assert in_flight.room(A, 5000)
    entry = start(in_flight, A, size=60)
    assert in_flight.room(A, 40)
    assert not in_flight.room(A, 41)
    in_flight.complete(entry, [])
    assert not in_flight.room(A, 41)
    in_flight.done(entry)
    assert in_flight.room(A, 41)


def test_results_that_wait_for_kafka_are_bounded_too() -> None:
    in_flight = InFlight(2, 1_000_000)
    partitions = [("content", partition) for partition in range(10)]
    in_flight.assign(partitions)
    started = 0
    for partition in partitions:
        while in_flight.room(partition, 10):
            in_flight.complete(start(in_flight, partition), [])
            started += 1
    assert started == 8
    assert in_flight.crowded()


def test_a_partition_that_left_and_came_back_is_another() -> None:
    in_flight = assigned()
    old = start(in_flight, A)
    in_flight.complete(old, [])
    in_flight.revoke([A])
    assert not in_flight.owns(old)
    in_flight.assign([A])
    new = start(in_flight, A, size=7)
    assert not in_flight.owns(old)
    assert in_flight.owns(new)
    assert in_flight.finished(0) == []
    # A late end of publishing must not displace the new batch.
    in_flight.done(old)
    in_flight.complete(new, [])
    assert in_flight.finished(0) == [new]


def test_a_revocation_reports_partitions_with_nothing_on_its_way_to_kafka() -> None:
    # Given one partition with a committed batch and one at the tagger, and one with a finished batch
    in_flight = assigned()
    first, finished = start(in_flight, A, 7), start(in_flight, B)
    in_flight.complete(first, [])
    in_flight.done(first)
    start(in_flight, A, 8)
    in_flight.complete(finished, [])
    assert in_flight.busy()
    # When both are revoked, then nothing of the first can still be committed, while a commit of the other may be in
    # flight
    left = in_flight.revoke([A, B])
    assert (left.batches, left.untouched) == (2, {A: 8})
    assert not in_flight.busy()


def test_a_drain_waits_for_batches_in_flight() -> None:
    in_flight = assigned()
    entry = start(in_flight, A)
    turns: list[int] = []

    def turn() -> bool:
        turns.append(1)
        if len(turns) == 3:
            in_flight.complete(entry, [])
            in_flight.done(entry)
        return True

    assert in_flight.drain([A, B], 5, turn)
    assert len(turns) == 3


def test_a_drain_ends_at_its_deadline_or_on_request() -> None:
    in_flight = assigned()
    start(in_flight, A)
    assert not in_flight.drain([A], 0.05, lambda: True)
    assert not in_flight.drain([A], 60, lambda: False)
    assert in_flight.drain([B], 60, lambda: True)


def test_a_drain_does_not_wait_for_a_dependency() -> None:
    in_flight = assigned()
    first, behind = start(in_flight, A), start(in_flight, A)
    in_flight.complete(behind, [])
    in_flight.stall(first, stalled=True)
    since = in_flight.stalled()
    # Continued waiting is not a new wait.
    in_flight.stall(first, stalled=True)
    assert since is not None
    assert in_flight.stalled() == since
    assert in_flight.drain([A], 60, lambda: True)
    in_flight.stall(first, stalled=False)
    assert not in_flight.drained([A])


def test_who_waits_for_finished_batches_is_woken() -> None:
    in_flight = assigned()
    entry = start(in_flight, A)
    found: list[list[InFlightBatch]] = []
    thread = threading.Thread(target=lambda: found.append(in_flight.finished(30)))
    thread.start()
    in_flight.complete(entry, [])
    wait_until(lambda: found, 120)
    thread.join()
    assert found == [[entry]]
