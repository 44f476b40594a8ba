"""Batches in flight: one lock over the assignment, the batches of each partition and their bytes.

A batch is in flight from when it is cut until its offsets are committed. It is stamped with the epoch of the assignment
that it was read in. A partition that was revoked and assigned again has a new epoch, so its old batches can never
commit; the broker's fencing (KIP-447) does not catch that, because the group metadata is fresh again.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from tagbus.stream import telemetry
from tagbus.stream.bus.processor import Batch, RecordOutcome
from tagbus.stream.errors import Poison
from tagbus.stream.kafka.message import Partition

# Batches in flight per batch in processing: results that wait for an earlier batch or for Kafka take memory too.
TOTAL = 4


@dataclass(slots=True, eq=False)
class InFlightBatch:
    """A batch in flight. `outcomes` is set when processing is done: one per record, in order. `sent`: brokers have
    confirmed its results, but not yet its offsets."""

    batch: Batch
    started: float
    outcomes: list[RecordOutcome] | None = None
    sent: bool = False
    # Since when it waits for a dependency. How long is unknown, so a drain does not wait for it.
    stalled: float | None = None
    work: Future[None] | None = None


@dataclass(slots=True)
class PartitionQueue:
    """An assigned partition: its epoch, its batches in offset order, and the last committed offset."""

    epoch: int
    entries: deque[InFlightBatch] = field(default_factory=deque)
    committed: int | None = None

    def working(self) -> int:
        """The number of its batches in processing."""
        return sum(entry.outcomes is None for entry in self.entries)

    def waiting(self) -> int:
        """How many of its batches are not sent."""
        return sum(not entry.sent for entry in self.entries)

    def finished(self) -> list[InFlightBatch]:
        """The publishable batches: not sent yet, with no unfinished batch of this partition before them."""
        ready = []
        for entry in self.entries:
            if entry.outcomes is None:
                break
            if not entry.sent:
                ready.append(entry)
        return ready

    def untouched(self) -> bool:
        """Whether nothing of it is on its way to Kafka."""
        return not self.entries or self.entries[0].outcomes is None


@dataclass(frozen=True, slots=True)
class Revoked:
    """The batches and partitions dropped by a revocation.

    `untouched`: the partitions with nothing on its way to Kafka, and the last offset that each committed in this
    assignment, None where it committed none.
    """

    batches: int
    untouched: dict[Partition, int | None]


class InFlight:
    """All batches in flight. Every method may be called from any thread."""

    def __init__(self, number: int, size: int) -> None:
        """`number`: limit of batches in processing at a time; `size`: limit of bytes in flight."""
        self._number = number
        self._size = size
        self._bytes = 0
        self._epoch = 0
        self._queues: dict[Partition, PartitionQueue] = {}
        self._changed = threading.Condition()

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Add partitions in a new epoch."""
        with self._changed:
            self._epoch += 1
            for partition in partitions:
                self._drop(partition)
                self._queues[partition] = PartitionQueue(self._epoch)
            self._report()

    def revoke(self, partitions: Iterable[Partition]) -> Revoked:
        """Remove partitions. Their batches are dropped and never commit."""
        with self._changed:
            queues = {
                partition: queue for partition in partitions if (queue := self._queues.get(partition)) is not None
            }
            untouched = {partition: queue.committed for partition, queue in queues.items() if queue.untouched()}
            dropped = sum(self._drop(partition) for partition in queues)
            self._report()
            return Revoked(dropped, untouched)

    def epoch(self, partition: Partition) -> int | None:
        """The epoch of a partition, None if it is not assigned."""
        with self._changed:
            queue = self._queues.get(partition)
            return None if queue is None else queue.epoch

    def partitions(self) -> list[Partition]:
        """The assigned partitions."""
        with self._changed:
            return list(self._queues)

    def owns(self, entry: InFlightBatch) -> bool:
        """Whether the partition of a batch is still assigned in the epoch in which the batch started."""
        with self._changed:
            return self._owned(entry.batch)

    def busy(self) -> bool:
        """Whether anything is in flight."""
        with self._changed:
            return any(queue.entries for queue in self._queues.values())

    def idle(self) -> bool:
        """Whether nothing is in flight but batches whose results are sent."""
        with self._changed:
            return not self._total()

    def first(self, partition: Partition) -> InFlightBatch | None:
        """The oldest batch in flight of a partition."""
        with self._changed:
            queue = self._queues.get(partition)
            return queue.entries[0] if queue is not None and queue.entries else None

    def committed(self, partition: Partition) -> int | None:
        """The last offset committed in this assignment of a partition; None for none."""
        with self._changed:
            queue = self._queues.get(partition)
            return None if queue is None else queue.committed

    def crowded(self) -> bool:
        """Whether the limit of batches in flight is reached, over all partitions."""
        with self._changed:
            return self._working() >= self._number or self._total() >= TOTAL * self._number or self._bytes >= self._size

    def room(self, partition: Partition, size: int) -> bool:
        """Whether a batch of `size` bytes of this partition may start now.

        A partition that fills all other processing slots does not get the last one, so that slow batches delay their
        own partition only. A partition may have `number` batches in flight, including processed ones that wait for an
        earlier one; all partitions together four times as many.
        """
        with self._changed:
            queue = self._queues.get(partition)
            if queue is None or (self._bytes and self._bytes + size > self._size):
                return False
            if self._total() >= TOTAL * self._number:
                return False
            own = queue.working()
            kept_free = 1 if own and len(self._queues) > 1 and self._number > 1 else 0
            return self._working() < self._number and own < self._number - kept_free and queue.waiting() < self._number

    def start(self, batch: Batch) -> InFlightBatch:
        """Add a batch in the current epoch of its partition. The partition is assigned: only the poll thread starts
        batches, and only it revokes partitions."""
        with self._changed:
            queue = self._queues[batch.partition]
            entry = InFlightBatch(replace(batch, epoch=queue.epoch), time.monotonic())
            queue.entries.append(entry)
            self._bytes += batch.size
            self._report()
            return entry

    def restart(self, entry: InFlightBatch, refused: Mapping[int, Poison]) -> list[InFlightBatch]:
        """Put all unsent batches of a partition in flight again, in a new epoch: Kafka refuses results of one of them,
        and decisions on later ones may rest on these. Empty if the batch is no longer owned."""
        with self._changed:
            if not self._owned(entry.batch):
                return []
            self._epoch += 1
            queue = self._queues[entry.batch.partition]
            queue.epoch = self._epoch
            old, queue.entries = queue.entries, deque()
            for one in old:
                if one.sent:
                    one.batch = replace(one.batch, epoch=self._epoch)
                    queue.entries.append(one)
                    continue
                if one.work is not None:
                    one.work.cancel()
                more = {**one.batch.refused, **refused} if one is entry else one.batch.refused
                queue.entries.append(InFlightBatch(replace(one.batch, epoch=self._epoch, refused=more), one.started))
            self._report()
            return [one for one in queue.entries if not one.sent]

    def complete(self, entry: InFlightBatch, outcomes: list[RecordOutcome]) -> None:
        """Record the outcomes of a batch: processing is done."""
        with self._changed:
            entry.outcomes = outcomes
            entry.stalled = None
            self._changed.notify_all()

    def stall(self, entry: InFlightBatch, *, stalled: bool) -> None:
        """Record that a batch waits for a dependency, or resumes."""
        with self._changed:
            entry.stalled = (entry.stalled or time.monotonic()) if stalled else None
            self._changed.notify_all()

    def stalled(self) -> float | None:
        """Since when, on time.monotonic(), a batch has waited for a dependency; None if none does."""
        with self._changed:
            waiting = [entry.stalled for queue in self._queues.values() for entry in queue.entries if entry.stalled]
            return min(waiting, default=None)

    def finished(self, seconds: float, interrupted: Callable[[], bool] = lambda: False) -> list[InFlightBatch]:
        """All publishable batches, in order within each partition. Waits up to `seconds` for one, or until
        `interrupted`, which is evaluated at every change and every `wake`."""
        with self._changed:
            self._changed.wait_for(
                lambda: interrupted() or any(queue.finished() for queue in self._queues.values()), seconds
            )
            return [entry for queue in self._queues.values() for entry in queue.finished()]

    def sent(self, entries: Iterable[InFlightBatch]) -> None:
        """Record that brokers have confirmed the results of these batches; their offsets follow."""
        with self._changed:
            for entry in entries:
                entry.sent = True

    def done(self, entry: InFlightBatch) -> None:
        """Remove a batch that is published and committed."""
        with self._changed:
            if self._owned(entry.batch):
                queue = self._queues[entry.batch.partition]
                queue.entries.remove(entry)
                queue.committed = entry.batch.next_offset
                self._bytes -= entry.batch.size
                self._report()

    def wait(self, seconds: float) -> None:
        """Wait until anything changes, up to `seconds`."""
        with self._changed:
            self._changed.wait(seconds)

    def wake(self) -> None:
        """End the `wait` of other threads."""
        with self._changed:
            self._changed.notify_all()

    def drained(self, partitions: Iterable[Partition]) -> bool:
        """Whether the only batches of these partitions in flight wait for a dependency, or behind one that does."""
        with self._changed:
            queues = [self._queues[partition] for partition in partitions if partition in self._queues]
            return all(not queue.entries or queue.entries[0].stalled for queue in queues)

    def drain(self, partitions: Iterable[Partition], seconds: float, turn: Callable[[], bool]) -> bool:
        """Wait until `drained`, up to `seconds`; `turn` is called a few times a second and returns whether to keep
        waiting."""
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
        return sum(queue.waiting() for queue in self._queues.values())

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
            if entry.batch.trace is not None:
                entry.batch.trace.dropped()
        telemetry.BATCHES.labels(outcome="dropped").inc(len(queue.entries))
        return len(queue.entries)

    def _report(self) -> None:
        telemetry.IN_FLIGHT_BATCHES.set(self._total())
        telemetry.IN_FLIGHT_BYTES.set(self._bytes)
        telemetry.PARTITIONS.set(len(self._queues))
        self._changed.notify_all()
