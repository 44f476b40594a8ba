"""What is under way: order, room, ownership. No Kafka here."""

import threading

from hypothesis import given, strategies

from tagbus.stream.bus.in_flight import Batch, Flight, Flights, Place, Source
from tagbus.stream.contract.codec import Record
from tagbus.stream.errors import Untaggable
from tests.support import wait_until

A, B = ("content", 0), ("content", 1)


def enter(flights: Flights, place: Place, offset: int = 0, size: int = 10) -> Flight:
    source = Source(*place, offset, Record(None, b""))
    return flights.enter(Batch(place, flights.epoch(place) or 0, (source,), size, 0.0))


def assigned(number: int = 4, size: int = 1000) -> Flights:
    flights = Flights(number, size)
    flights.assign([A, B])
    return flights


@given(strategies.permutations(range(6)))
def test_a_partition_is_published_in_order_however_its_batches_finish(order: list[int]) -> None:
    flights = assigned(10)
    entered = [enter(flights, A, offset) for offset in range(6)]
    published: list[int] = []
    for index in order:
        flights.land(entered[index], [])
        for flight in flights.finished(0):
            published.append(flight.batch.sources[0].offset)
            flights.done(flight)
    assert published == list(range(6))


def test_a_slow_batch_holds_up_its_own_partition_only() -> None:
    flights = assigned()
    enter(flights, A, 0)
    after, other = enter(flights, A, 1), enter(flights, B, 0)
    flights.land(after, [])
    flights.land(other, [])
    assert flights.finished(0) == [other]


def test_one_place_is_kept_from_a_partition_that_fills_all_others() -> None:
    flights = assigned(3)
    enter(flights, A)
    assert flights.room(A, 10)
    enter(flights, A)
    assert not flights.room(A, 10)
    assert flights.room(B, 10)
    enter(flights, B)
    assert not flights.room(B, 10)
    assert flights.crowded()


def test_what_is_tagged_again_keeps_its_order_and_is_of_another_epoch() -> None:
    flights = Flights(3, 1000)
    flights.assign([A, B])
    first, second, other = enter(flights, A), enter(flights, A), enter(flights, B)
    flights.land(second, [])
    reason = Untaggable("publish", ())
    again = flights.again(first, {0: reason})
    assert [flight.batch.sources for flight in again] == [first.batch.sources, second.batch.sources]
    assert [dict(flight.batch.refused) for flight in again] == [{0: reason}, {}]
    # What was decided does not count, and what comes is of the same epoch.
    assert [flights.owns(flight) for flight in (first, second, other, *again)] == [False, False, True, True, True]
    assert {flight.batch.epoch for flight in (*again, enter(flights, A))} == {flights.epoch(A)}
    assert flights.finished(0) == []
    # What was refused before stays refused.
    assert dict(flights.again(again[0], {2: reason})[0].batch.refused) == {0: reason, 2: reason}
    # A batch that is not ours any more is not tagged again.
    assert flights.again(first, {0: reason}) == []


def test_a_partition_alone_may_use_every_place() -> None:
    flights = Flights(2, 1000)
    flights.assign([A])
    enter(flights, A)
    assert flights.room(A, 10)


def test_bytes_are_bounded_and_one_batch_always_goes() -> None:
    flights = assigned(10, 100)
    assert flights.room(A, 5000)
    flight = enter(flights, A, size=60)
    assert flights.room(A, 40)
    assert not flights.room(A, 41)
    flights.land(flight, [])
    assert not flights.room(A, 41)
    flights.done(flight)
    assert flights.room(A, 41)


def test_results_that_wait_for_kafka_are_bounded_too() -> None:
    flights = Flights(2, 1_000_000)
    places = [("content", partition) for partition in range(10)]
    flights.assign(places)
    entered = 0
    for place in places:
        while flights.room(place, 10):
            flights.land(enter(flights, place), [])
            entered += 1
    assert entered == 8
    assert flights.crowded()


def test_a_partition_that_left_and_came_back_is_another() -> None:
    flights = assigned()
    old = enter(flights, A)
    flights.land(old, [])
    flights.leave([A])
    assert not flights.owns(old)
    flights.assign([A])
    new = enter(flights, A, size=7)
    assert not flights.owns(old)
    assert flights.owns(new)
    assert flights.finished(0) == []
    # Publishing that ends late must not take the new batch's place.
    flights.done(old)
    flights.land(new, [])
    assert flights.finished(0) == [new]


def test_what_is_left_says_which_partitions_have_nothing_on_its_way_to_kafka() -> None:
    # Given one partition with a committed batch and one at the tagger, and one with a finished batch
    flights = assigned()
    first, finished = enter(flights, A, 7), enter(flights, B)
    flights.land(first, [])
    flights.done(first)
    enter(flights, A, 8)
    flights.land(finished, [])
    assert flights.busy()
    # When both go, then nothing of the first can be committed any more, and of the other it may be under way
    left = flights.leave([A, B])
    assert (left.batches, left.untouched) == (2, {A: 8})
    assert not flights.busy()


def test_a_drain_waits_for_what_is_under_way() -> None:
    flights = assigned()
    flight = enter(flights, A)
    turns: list[int] = []

    def turn() -> bool:
        turns.append(1)
        if len(turns) == 3:
            flights.land(flight, [])
            flights.done(flight)
        return True

    assert flights.drain([A, B], 5, turn)
    assert len(turns) == 3


def test_a_drain_ends_at_its_deadline_or_when_told() -> None:
    flights = assigned()
    enter(flights, A)
    assert not flights.drain([A], 0.05, lambda: True)
    assert not flights.drain([A], 60, lambda: False)
    assert flights.drain([B], 60, lambda: True)


def test_a_drain_does_not_wait_for_a_dependency() -> None:
    flights = assigned()
    first, behind = enter(flights, A), enter(flights, A)
    flights.land(behind, [])
    flights.stall(first, stalled=True)
    since = flights.stalled()
    # Waiting on is no new wait.
    flights.stall(first, stalled=True)
    assert since is not None
    assert flights.stalled() == since
    assert flights.drain([A], 60, lambda: True)
    flights.stall(first, stalled=False)
    assert not flights.drained([A])


def test_who_waits_for_finished_batches_is_woken() -> None:
    flights = assigned()
    flight = enter(flights, A)
    found: list[list[Flight]] = []
    thread = threading.Thread(target=lambda: found.append(flights.finished(30)))
    thread.start()
    flights.land(flight, [])
    wait_until(lambda: found, 5)
    thread.join()
    assert found == [[flight]]
