"""What is under way: one lock over the assignment, the batches of each partition and their bytes.

A batch is a run of consecutive records of one partition, stamped with the epoch of the assignment it was read in. A
partition that left and came back has another epoch, so its old batches can never commit; the broker's own fencing
(KIP-447) does not see that, because the group's metadata is fresh again.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from tagbus.stream import telemetry
from tagbus.stream.contract.codec import Record
from tagbus.stream.errors import Poison
from tagbus.stream.kafka.message import Partition

# Batches under way, tagged or not, for each that may be at the tagger: results that wait for an earlier batch or for
# Kafka take memory too.
TOTAL = 4


# Source, Outgoing and RecordOutcome are not frozen: one of each is made for each record, and that takes a third of the
# time.
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

    partition: Partition
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
class RecordOutcome:
    """What becomes of one record. `kind`: the label that it is counted under; "dead_lettered" for a dead letter.
    `stage`: the step that refused it, of a dead letter only."""

    kind: str
    outgoing: tuple[Outgoing, ...]
    stage: str = ""
    # The event's own time, in Unix seconds; None: the record's counts.
    event_time: float | None = None


@dataclass(slots=True, eq=False)
class InFlightBatch:
    """A batch under way. `outcomes` are there when the tagger is done, one a source, in order."""

    batch: Batch
    started: float
    outcomes: list[RecordOutcome] | None = None
    # Since when it waits for a dependency: nobody knows for how long, so a drain does not wait for it.
    stalled: float | None = None
    work: Future[None] | None = None


@dataclass(slots=True)
class PartitionQueue:
    """One assigned partition: its epoch, its flights in order, and the offset that was committed last."""

    epoch: int
    entries: deque[InFlightBatch] = field(default_factory=deque)
    committed: int | None = None

    def working(self) -> int:
        return sum(entry.outcomes is None for entry in self.entries)

    def finished(self) -> list[InFlightBatch]:
        """The flights that may be published: no unfinished one of this partition stands before them."""
        ready = []
        for entry in self.entries:
            if entry.outcomes is None:
                break
            ready.append(entry)
        return ready


@dataclass(frozen=True, slots=True)
class Revoked:
    """What was given up with some partitions: batches, and which partitions have nothing on its way to Kafka.

    `untouched` holds the offset that was committed last in this assignment, None where there is none.
    """

    batches: int
    untouched: dict[Partition, int | None]


class InFlight:
    """All that is under way. Every method may be called from any thread."""

    def __init__(self, number: int, size: int) -> None:
        """`number`: batches at the tagger at once, at most; `size`: bytes under way, at most."""
        self._number = number
        self._size = size
        self._bytes = 0
        self._epoch = 0
        self._queues: dict[Partition, PartitionQueue] = {}
        self._changed = threading.Condition()

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Partitions that came; a new epoch for each."""
        with self._changed:
            self._epoch += 1
            for partition in partitions:
                self._drop(partition)
                self._queues[partition] = PartitionQueue(self._epoch)
            self._report()

    def revoke(self, partitions: Iterable[Partition]) -> Revoked:
        """Partitions that went: their batches are dropped and will never commit."""
        with self._changed:
            queues = {
                partition: queue for partition in partitions if (queue := self._queues.get(partition)) is not None
            }
            untouched = {partition: queue.committed for partition, queue in queues.items() if not queue.finished()}
            dropped = sum(self._drop(partition) for partition in queues)
            self._report()
            return Revoked(dropped, untouched)

    def epoch(self, partition: Partition) -> int | None:
        """The epoch of a partition, or None where it is not ours."""
        with self._changed:
            queue = self._queues.get(partition)
            return None if queue is None else queue.epoch

    def partitions(self) -> list[Partition]:
        """The partitions that are ours."""
        with self._changed:
            return list(self._queues)

    def owns(self, entry: InFlightBatch) -> bool:
        """Whether the flight's partition is still held in the epoch that it was read in."""
        with self._changed:
            return self._owned(entry.batch)

    def busy(self) -> bool:
        """Whether anything is under way."""
        with self._changed:
            return any(queue.entries for queue in self._queues.values())

    def first(self, partition: Partition) -> InFlightBatch | None:
        """The oldest batch under way of a partition."""
        with self._changed:
            queue = self._queues.get(partition)
            return queue.entries[0] if queue is not None and queue.entries else None

    def crowded(self) -> bool:
        """Whether the tagger has as many batches as it may, whatever their partitions."""
        with self._changed:
            return self._working() >= self._number or self._total() >= TOTAL * self._number or self._bytes >= self._size

    def room(self, partition: Partition, size: int) -> bool:
        """Whether a batch of `size` bytes of this partition may be put under way now.

        One place at the tagger is kept from the partition that fills all others, so that slow batches hold up their
        own partition only. A partition has as many batches under way as the whole worker has at the tagger (those that
        wait for an earlier one count here and not there), and all partitions together four times as many.
        """
        with self._changed:
            queue = self._queues.get(partition)
            if queue is None or (self._bytes and self._bytes + size > self._size):
                return False
            if self._total() >= TOTAL * self._number:
                return False
            own = queue.working()
            kept_free = 1 if own and len(self._queues) > 1 and self._number > 1 else 0
            return (
                self._working() < self._number and own < self._number - kept_free and len(queue.entries) < self._number
            )

    def start(self, batch: Batch) -> InFlightBatch:
        """Put a batch under way, in the epoch that its partition is in. That is ours: only the poll thread enters, and
        it gives partitions away."""
        with self._changed:
            queue = self._queues[batch.partition]
            entry = InFlightBatch(replace(batch, epoch=queue.epoch), time.monotonic())
            queue.entries.append(entry)
            self._bytes += batch.size
            self._report()
            return entry

    def again(self, entry: InFlightBatch, refused: Mapping[int, Poison]) -> list[InFlightBatch]:
        """All batches of the partition of one whose results Kafka does not take, to be tagged again in another epoch:
        what was decided of those behind it rests on results that will never be published. None if it is not ours."""
        with self._changed:
            if not self._owned(entry.batch):
                return []
            self._epoch += 1
            queue = self._queues[entry.batch.partition]
            queue.epoch = self._epoch
            old, queue.entries = queue.entries, deque()
            for one in old:
                if one.work is not None:
                    one.work.cancel()
                more = {**one.batch.refused, **refused} if one is entry else one.batch.refused
                queue.entries.append(InFlightBatch(replace(one.batch, epoch=self._epoch, refused=more), one.started))
            self._report()
            return list(queue.entries)

    def complete(self, entry: InFlightBatch, outcomes: list[RecordOutcome]) -> None:
        """The tagger is done with it."""
        with self._changed:
            entry.outcomes = outcomes
            entry.stalled = None
            self._changed.notify_all()

    def stall(self, entry: InFlightBatch, *, stalled: bool) -> None:
        """It waits for a dependency, or goes on."""
        with self._changed:
            entry.stalled = (entry.stalled or time.monotonic()) if stalled else None
            self._changed.notify_all()

    def stalled(self) -> float | None:
        """Since when, on time.monotonic(), a batch waits for a dependency; None where none does."""
        with self._changed:
            waiting = [entry.stalled for queue in self._queues.values() for entry in queue.entries if entry.stalled]
            return min(waiting, default=None)

    def finished(self, seconds: float) -> list[InFlightBatch]:
        """All flights that may be published now, in order within each partition; waits for one at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: any(queue.finished() for queue in self._queues.values()), seconds)
            return [entry for queue in self._queues.values() for entry in queue.finished()]

    def done(self, entry: InFlightBatch) -> None:
        """It is published and committed."""
        with self._changed:
            if self._owned(entry.batch):
                queue = self._queues[entry.batch.partition]
                queue.entries.remove(entry)
                queue.committed = entry.batch.next_offset
                self._bytes -= entry.batch.size
                self._report()

    def wait(self, seconds: float) -> None:
        """Wait until anything changed, at most so long."""
        with self._changed:
            self._changed.wait(seconds)

    def wake(self) -> None:
        """End the `wait` of another thread."""
        with self._changed:
            self._changed.notify_all()

    def drained(self, partitions: Iterable[Partition]) -> bool:
        """Whether nothing of these partitions is under way but what waits for a dependency, or behind that."""
        with self._changed:
            queues = [self._queues[partition] for partition in partitions if partition in self._queues]
            return all(not queue.entries or queue.entries[0].stalled for queue in queues)

    def drain(self, partitions: Iterable[Partition], seconds: float, turn: Callable[[], bool]) -> bool:
        """Wait until `drained`, at most so long; `turn` is called a few times a second and says whether to go on."""
        until, partitions = time.monotonic() + seconds, list(partitions)
        while not self.drained(partitions):
            left = until - time.monotonic()
            if left <= 0 or not turn():
                return False
            self.wait(min(0.1, left))
        return True

    def _owned(self, batch: Batch) -> bool:
        queue = self._queues.get(batch.partition)
        return queue is not None and queue.epoch == batch.epoch

    def _total(self) -> int:
        return sum(len(queue.entries) for queue in self._queues.values())

    def _working(self) -> int:
        return sum(queue.working() for queue in self._queues.values())

    def _drop(self, partition: Partition) -> int:
        queue = self._queues.pop(partition, None)
        if queue is None:
            return 0
        for entry in queue.entries:
            self._bytes -= entry.batch.size
            if entry.work is not None:
                entry.work.cancel()
        telemetry.BATCHES.labels(outcome="dropped").inc(len(queue.entries))
        return len(queue.entries)

    def _report(self) -> None:
        telemetry.IN_FLIGHT_BATCHES.set(self._total())
        telemetry.IN_FLIGHT_BYTES.set(self._bytes)
        telemetry.PARTITIONS.set(len(self._queues))
        self._changed.notify_all()
