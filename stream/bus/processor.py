"""The processor interface: what a worker runs, the batches it receives and the outcomes it returns.

The worker does the same for every processor: it reads in a group, cuts batches, keeps the order within a partition,
publishes results, dead letters and offsets in one transaction, and resumes where it stopped.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tagbus.stream.contract.codec import Record
from tagbus.stream.errors import Poison
from tagbus.stream.kafka.message import Partition
from tagbus.stream.kafka.rights import Operation
from tagbus.stream.telemetry.traces import BatchTrace

# Called with True when a batch starts to wait for a dependency, with False when it resumes.
Stall = Callable[[bool], None]


# Source, Outgoing and RecordOutcome are not frozen: each record creates one of each, and freezing them makes that three
# times as slow.
@dataclass(slots=True)
class Source:
    """A record and where it comes from. `timestamp`: the broker's or the producer's, in Unix seconds."""

    topic: str
    partition: int
    offset: int
    record: Record
    timestamp: float | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one partition. `size` is in bytes, `read` is of time.monotonic().

    `epoch`: of the assignment that the batch belongs to. `refused`: records whose result Kafka refused, by their index
    in the batch, and why. `trace`: its trace, None where it is not traced.
    """

    partition: Partition
    epoch: int
    sources: tuple[Source, ...]
    size: int
    read: float
    refused: Mapping[int, Poison] = field(default_factory=dict)
    trace: BatchTrace | None = None

    @property
    def next_offset(self) -> int:
        """The offset to commit for the batch: its last offset plus one, never the consumer's position."""
        return self.sources[-1].offset + 1


@dataclass(slots=True)
class Outgoing:
    """One record to produce."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    # -1: the partition that Java clients would choose for the key.
    partition: int = -1


@dataclass(slots=True)
class RecordOutcome:
    """The outcome of one record. `kind`: the label under which it is counted, "dead_lettered" for a dead letter.
    `stage`: the step that rejected it, and `reason`: the class of the error; dead letters only. `path`: one of
    telemetry.PATHS."""

    kind: str
    outgoing: tuple[Outgoing, ...]
    stage: str = ""
    # The event's own time, in Unix seconds; None: use the record's timestamp.
    event_time: float | None = None
    reason: str = ""
    path: str = "untagged"


@dataclass(frozen=True, slots=True)
class WorkerTopics:
    """The topics of a worker.

    `source` is read; `results` and `dead_letters` are written. `state` are compacted topics that are read and written
    partition by partition beside the source: each has at least as many partitions.
    """

    source: str
    results: tuple[str, ...]
    dead_letters: str
    state: tuple[str, ...] = ()

    @property
    def operations(self) -> list[tuple[Operation, str]]:
        """What the worker does with them."""
        found: list[tuple[Operation, str]] = [("Read", topic) for topic in (self.source, *self.state)]
        return [*found, *(("Write", topic) for topic in (*self.results, self.dead_letters, *self.state))]


class Processor(Protocol):
    """Turns records into outcomes. A subclass must have `topics` and `process`; the other methods do nothing by
    default."""

    topics: WorkerTopics

    async def process(self, batch: Batch, stall: Stall) -> list[RecordOutcome]:
        """One outcome for each record of a batch, in order. Runs on the loop thread.

        Several batches are processed concurrently; those of a partition start in offset order. A record in
        `batch.refused` gets a dead letter. Waits for dependencies without limit, and calls `stall` before and after; it
        is cancelled when the partition is revoked. Any exception ends the worker.
        """
        ...

    def prepare(self) -> None:
        """Called once before anything else, on the thread that runs the worker; may block."""

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Handle an assignment of partitions. Called on the poll thread, as `ready` and `revoke` are; must not
        block."""

    def ready(self, partition: Partition) -> bool:  # noqa: ARG002 - for those that override it
        """Whether batches of an assigned partition may be processed. Any exception ends the worker."""
        return True

    def problem(self) -> str:
        """What partitions that are not ready wait for, if that needs an operator's action; else empty. Called by any
        thread."""
        return ""

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """Handle a revocation of partitions."""

    def published(self, batch: Batch, outcomes: Sequence[RecordOutcome]) -> None:
        """Handle the commit of a batch. Called on the publish thread; any exception ends the worker."""

    def close(self) -> None:
        """Release resources: the worker ends."""
