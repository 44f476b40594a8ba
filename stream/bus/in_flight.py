"""What is under way: one lock over the assignment, the batches of each partition and their bytes.

A batch is a run of consecutive records of one partition, stamped with the epoch of the assignment it was read in. A
partition that left and came back has another epoch, so its old batches can never commit; the broker's own fencing
(KIP-447) does not see that, because the group's metadata is fresh again.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Literal

from tagbus.stream import telemetry
from tagbus.stream.contract.codec import Record
from tagbus.stream.errors import Poison

Place = tuple[str, int]

# Batches under way, tagged or not, for each that may be at the tagger: results that wait for an earlier batch or for
# Kafka take memory too.
TOTAL = 4


# Source, Outgoing and Verdict are not frozen: one of each is made for each record, and that takes a third of the time.
@dataclass(slots=True)
class Source:
    """Where a record comes from, and the record. `timestamp`: the broker's or the producer's, in Unix seconds."""

    topic: str
    partition: int
    offset: int
    record: Record
    timestamp: float | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """A run of consecutive records of one partition. `size` is in bytes, `read` on time.monotonic().

    `refused`: records whose result Kafka does not take, by their place in the batch, and why: they are set aside.
    """

    place: Place
    epoch: int
    sources: tuple[Source, ...]
    size: int
    read: float
    refused: Mapping[int, Poison] = field(default_factory=dict)

    @property
    def next_offset(self) -> int:
        """What is committed for it: its last offset plus one, never the consumer's position."""
        return self.sources[-1].offset + 1


@dataclass(slots=True)
class Outgoing:
    """One record to produce."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    # -1: the one that Java clients would give the key.
    partition: int = -1


@dataclass(slots=True)
class Verdict:
    """What becomes of one record. `stage`: the step that refused it, of a dead letter only."""

    outcome: Literal["tagged", "dead_lettered", "withdrawn", "duplicate"]
    outgoing: tuple[Outgoing, ...]
    stage: str = ""
    # The event's own time, in Unix seconds; None: the record's counts.
    event_time: float | None = None
    # The content, as it is remembered to know the same one again.
    seen: "Seen | None" = None


@dataclass(slots=True, eq=False)
class Seen:
    """A content that went to the tagger. `revision`: the tagger's when it was tagged, None: unknown. `published` is set
    by the publish thread, once its tags are committed."""

    place: Place
    epoch: int
    fingerprint: int
    revision: Hashable | None
    published: bool = False


@dataclass(slots=True, eq=False)
class Flight:
    """A batch under way. `verdicts` are there when the tagger is done, one a source, in order."""

    batch: Batch
    entered: float
    verdicts: list[Verdict] | None = None
    # Since when it waits for a dependency: nobody knows for how long, so a drain does not wait for it.
    stalled: float | None = None
    work: Future[None] | None = None


@dataclass(slots=True)
class _Lane:
    """One assigned partition: its epoch, its flights in order, and the offset that was committed last."""

    epoch: int
    flights: deque[Flight] = field(default_factory=deque)
    committed: int | None = None

    def working(self) -> int:
        return sum(flight.verdicts is None for flight in self.flights)

    def finished(self) -> list[Flight]:
        """The flights that may be published: no unfinished one of this partition stands before them."""
        ready = []
        for flight in self.flights:
            if flight.verdicts is None:
                break
            ready.append(flight)
        return ready


@dataclass(frozen=True, slots=True)
class Left:
    """What was given up with some partitions: batches, and which partitions have nothing on its way to Kafka.

    `untouched` holds the offset that was committed last in this assignment, None where there is none.
    """

    batches: int
    untouched: dict[Place, int | None]


class Flights:
    """All that is under way. Every method may be called from any thread."""

    def __init__(self, number: int, size: int) -> None:
        """`number`: batches at the tagger at once, at most; `size`: bytes under way, at most."""
        self._number = number
        self._size = size
        self._bytes = 0
        self._epoch = 0
        self._lanes: dict[Place, _Lane] = {}
        self._changed = threading.Condition()

    def assign(self, places: Iterable[Place]) -> None:
        """Partitions that came; a new epoch for each."""
        with self._changed:
            self._epoch += 1
            for place in places:
                self._drop(place)
                self._lanes[place] = _Lane(self._epoch)
            self._report()

    def leave(self, places: Iterable[Place]) -> Left:
        """Partitions that went: their batches are dropped and will never commit."""
        with self._changed:
            lanes = {place: lane for place in places if (lane := self._lanes.get(place)) is not None}
            untouched = {place: lane.committed for place, lane in lanes.items() if not lane.finished()}
            dropped = sum(self._drop(place) for place in lanes)
            self._report()
            return Left(dropped, untouched)

    def epoch(self, place: Place) -> int | None:
        """The epoch of a partition, or None where it is not ours."""
        with self._changed:
            lane = self._lanes.get(place)
            return None if lane is None else lane.epoch

    def places(self) -> list[Place]:
        """The partitions that are ours."""
        with self._changed:
            return list(self._lanes)

    def owns(self, flight: Flight) -> bool:
        """Whether the flight's partition is still held in the epoch that it was read in."""
        with self._changed:
            return self._owned(flight.batch)

    def busy(self) -> bool:
        """Whether anything is under way."""
        with self._changed:
            return any(lane.flights for lane in self._lanes.values())

    def first(self, place: Place) -> Flight | None:
        """The oldest batch under way of a partition."""
        with self._changed:
            lane = self._lanes.get(place)
            return lane.flights[0] if lane is not None and lane.flights else None

    def crowded(self) -> bool:
        """Whether the tagger has as many batches as it may, whatever their partitions."""
        with self._changed:
            return self._working() >= self._number or self._total() >= TOTAL * self._number or self._bytes >= self._size

    def room(self, place: Place, size: int) -> bool:
        """Whether a batch of `size` bytes of this partition may be put under way now.

        One place at the tagger is kept from the partition that fills all others, so that slow batches hold up their
        own partition only. A partition has as many batches under way as the whole worker has at the tagger (those that
        wait for an earlier one count here and not there), and all partitions together four times as many.
        """
        with self._changed:
            lane = self._lanes.get(place)
            if lane is None or (self._bytes and self._bytes + size > self._size):
                return False
            if self._total() >= TOTAL * self._number:
                return False
            own = lane.working()
            kept_free = 1 if own and len(self._lanes) > 1 and self._number > 1 else 0
            return (
                self._working() < self._number and own < self._number - kept_free and len(lane.flights) < self._number
            )

    def enter(self, batch: Batch) -> Flight:
        """Put a batch under way, in the epoch that its partition is in. That is ours: only the poll thread enters, and
        it gives partitions away."""
        with self._changed:
            lane = self._lanes[batch.place]
            flight = Flight(replace(batch, epoch=lane.epoch), time.monotonic())
            lane.flights.append(flight)
            self._bytes += batch.size
            self._report()
            return flight

    def again(self, flight: Flight, refused: Mapping[int, Poison]) -> list[Flight]:
        """All batches of the partition of one whose results Kafka does not take, to be tagged again in another epoch:
        what was decided of those behind it rests on results that will never be published. None if it is not ours."""
        with self._changed:
            if not self._owned(flight.batch):
                return []
            self._epoch += 1
            lane = self._lanes[flight.batch.place]
            lane.epoch = self._epoch
            old, lane.flights = lane.flights, deque()
            for one in old:
                if one.work is not None:
                    one.work.cancel()
                more = {**one.batch.refused, **refused} if one is flight else one.batch.refused
                lane.flights.append(Flight(replace(one.batch, epoch=self._epoch, refused=more), one.entered))
            self._report()
            return list(lane.flights)

    def land(self, flight: Flight, verdicts: list[Verdict]) -> None:
        """The tagger is done with it."""
        with self._changed:
            flight.verdicts = verdicts
            flight.stalled = None
            self._changed.notify_all()

    def stall(self, flight: Flight, *, stalled: bool) -> None:
        """It waits for a dependency, or goes on."""
        with self._changed:
            flight.stalled = (flight.stalled or time.monotonic()) if stalled else None
            self._changed.notify_all()

    def stalled(self) -> float | None:
        """Since when, on time.monotonic(), a batch waits for a dependency; None where none does."""
        with self._changed:
            waiting = [flight.stalled for lane in self._lanes.values() for flight in lane.flights if flight.stalled]
            return min(waiting, default=None)

    def finished(self, seconds: float) -> list[Flight]:
        """All flights that may be published now, in order within each partition; waits for one at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: any(lane.finished() for lane in self._lanes.values()), seconds)
            return [flight for lane in self._lanes.values() for flight in lane.finished()]

    def done(self, flight: Flight) -> None:
        """It is published and committed."""
        with self._changed:
            if self._owned(flight.batch):
                lane = self._lanes[flight.batch.place]
                lane.flights.remove(flight)
                lane.committed = flight.batch.next_offset
                self._bytes -= flight.batch.size
                self._report()

    def wait(self, seconds: float) -> None:
        """Wait until anything changed, at most so long."""
        with self._changed:
            self._changed.wait(seconds)

    def wake(self) -> None:
        """End the `wait` of another thread."""
        with self._changed:
            self._changed.notify_all()

    def drained(self, places: Iterable[Place]) -> bool:
        """Whether nothing of these partitions is under way but what waits for a dependency, or behind that."""
        with self._changed:
            lanes = [self._lanes[place] for place in places if place in self._lanes]
            return all(not lane.flights or lane.flights[0].stalled for lane in lanes)

    def drain(self, places: Iterable[Place], seconds: float, turn: Callable[[], bool]) -> bool:
        """Wait until `drained`, at most so long; `turn` is called a few times a second and says whether to go on."""
        until, places = time.monotonic() + seconds, list(places)
        while not self.drained(places):
            left = until - time.monotonic()
            if left <= 0 or not turn():
                return False
            self.wait(min(0.1, left))
        return True

    def _owned(self, batch: Batch) -> bool:
        lane = self._lanes.get(batch.place)
        return lane is not None and lane.epoch == batch.epoch

    def _total(self) -> int:
        return sum(len(lane.flights) for lane in self._lanes.values())

    def _working(self) -> int:
        return sum(lane.working() for lane in self._lanes.values())

    def _drop(self, place: Place) -> int:
        lane = self._lanes.pop(place, None)
        if lane is None:
            return 0
        for flight in lane.flights:
            self._bytes -= flight.batch.size
            if flight.work is not None:
                flight.work.cancel()
        telemetry.BATCHES.labels(outcome="dropped").inc(len(lane.flights))
        return len(lane.flights)

    def _report(self) -> None:
        telemetry.IN_FLIGHT_BATCHES.set(self._total())
        telemetry.IN_FLIGHT_BYTES.set(self._bytes)
        telemetry.PARTITIONS.set(len(self._lanes))
        self._changed.notify_all()
