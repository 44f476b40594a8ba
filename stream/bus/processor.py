"""What a worker runs: a processor, the batches that it is given and the outcomes that it returns.

The worker does the same for every processor: it reads in a group, cuts batches, keeps the order within a partition,
publishes results, dead letters and offsets in one transaction, and resumes where it was stopped.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tagbus.stream.contract.codec import Record
from tagbus.stream.errors import Poison
from tagbus.stream.kafka.message import Partition
from tagbus.stream.telemetry.traces import BatchTrace

# Called with True when a batch starts to wait for a dependency, with False when it goes on.
Stall = Callable[[bool], None]


# Source, Outgoing and RecordOutcome are not frozen: one of each is made for every record, and freezing them would make
# that three times as slow.
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

    `epoch`: of the assignment that the batch belongs to. `refused`: records whose result Kafka has refused, by their
    index in the batch, and why. `trace`: its trace, None where it is not traced.
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
        """What is committed for the batch: its last offset plus one, never the consumer's position."""
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
    """What becomes of one record. `kind`: the label under which it is counted, "dead_lettered" for a dead letter.
    `stage`: the step that rejected it, and `reason`: the class of the error; of dead letters only. `path`: one of
    telemetry.PATHS."""

    kind: str
    outgoing: tuple[Outgoing, ...]
    stage: str = ""
    # The event's own time, in Unix seconds; None: the record's timestamp counts.
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


class Processor(Protocol):
    """What becomes of records. A subclass must have `topics` and `process`; the other methods do nothing by default."""

    topics: WorkerTopics

    async def process(self, batch: Batch, stall: Stall) -> list[RecordOutcome]:
        """One outcome for each record of a batch, in order. Runs on the loop thread.

        Several batches are processed at once; those of a partition start in order of offsets. A record in
        `batch.refused` gets a dead letter. Waits for dependencies as long as it takes, and calls `stall` before and
        after; it is cancelled when the partition is revoked. Anything it raises ends the worker.
        """
        ...

    def prepare(self) -> None:
        """Called once before anything else, on the thread that runs the worker; may block."""

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Partitions were assigned. Called on the poll thread, as `ready` and `revoke` are; returns at once."""

    def ready(self, partition: Partition) -> bool:  # noqa: ARG002 - for those that override it
        """Whether batches of an assigned partition may be processed. Anything it raises ends the worker."""
        return True

    def problem(self) -> str:
        """What partitions that are not ready wait for, if somebody must do something about it; else empty. Called by
        any thread."""
        return ""

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """Partitions were revoked."""

    def published(self, batch: Batch, outcomes: Sequence[RecordOutcome]) -> None:
        """A batch is committed. Called on the publish thread; anything it raises ends the worker."""

    def close(self) -> None:
        """The worker ends."""
