"""What a worker runs: a processor, which knows what records mean, and the topics that it reads and writes.

The worker does the same for every processor: it reads in a group, cuts batches, keeps the order within a partition,
publishes results, dead letters and offsets in one transaction, and starts again where it was stopped.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from tagbus.stream.bus.in_flight import Batch, InFlightBatch, RecordOutcome
from tagbus.stream.kafka.message import Partition

# Called with True when a batch begins to wait for a dependency, with False when it goes on.
Stall = Callable[[bool], None]


@dataclass(frozen=True, slots=True)
class WorkerTopics:
    """The topics of a worker.

    `source` is read, `results` and `dead_letters` are written. `state` are compacted topics that are read and written
    partition by partition beside the source: each has at least as many partitions.
    """

    source: str
    results: tuple[str, ...]
    dead_letters: str
    state: tuple[str, ...] = ()


class Processor(Protocol):
    """What becomes of records. A subclass must have `topics` and `process`; the other methods do nothing by default."""

    topics: WorkerTopics

    async def process(self, batch: Batch, stall: Stall) -> list[RecordOutcome]:
        """One outcome for each record of a batch, in order. Belongs to the loop thread.

        Several batches are processed at once; those of a partition are begun in order of offsets. A record in
        `batch.refused` gets a dead letter. Waits for dependencies as long as it takes, and calls `stall` around the
        wait; it is cancelled where the partition is revoked. Whatever it raises ends the worker.
        """
        ...

    def prepare(self) -> None:
        """Called once before anything else, in the thread that runs the worker; may wait."""

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Partitions that came. From the poll thread, as `ready` and `revoke` are; returns at once."""

    def ready(self, partition: Partition) -> bool:  # noqa: ARG002 - for those that override it
        """Whether batches of an assigned partition may be processed. What it raises ends the worker."""
        return True

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """Partitions that went."""

    def published(self, entry: InFlightBatch) -> None:
        """A batch is committed. From the publish thread; what it raises ends the worker."""

    def close(self) -> None:
        """The worker ends."""
