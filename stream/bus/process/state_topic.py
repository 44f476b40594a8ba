"""A compacted topic with a processor's state per partition, read when partitions are assigned.

Its records are written in the transaction of the results that they belong to, to the partition with the same number as
the source's, so the owner of a partition reads only that partition before its first batch.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, Protocol, TypeVar

from confluent_kafka import Consumer, Message

from tagbus.stream.config import Settings
from tagbus.stream.errors import DependencyDown, TopicMissing
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.identity import TopicIds
from tagbus.stream.kafka.message import Partition, partition_of
from tagbus.stream.kafka.metadata import Watermarks, watermarks
from tagbus.stream.kafka.reader import TopicReader
from tagbus.stream.retry import backoff

log = logging.getLogger(__name__)

# Records per call, and how long a call waits for them: a revoked partition is noticed within it.
CHUNK = 2000
WAIT_SECONDS = 0.2
JOIN_SECONDS = 5.0
# Between two checks for partitions that the topic lacks.
LACKING_SECONDS = 2.0


class StatePartition(Protocol):
    """The state of one partition in one assignment. Another thread fills it until it is `ready`.

    `lacks`: what its topic lacks, in words; empty if it lacks nothing.
    """

    ready: bool
    lacks: str

    def __len__(self) -> int: ...

    def learn(self, key: bytes, value: bytes | None) -> None:
        """Take in a record of the topic; the last one of a key counts."""


P = TypeVar("P", bound=StatePartition)


class StateTopic(Generic[P]):
    """The state of the assigned partitions. Every method may be called from any thread."""

    def __init__(self, settings: Settings, topic: str, name: str) -> None:
        """`name`: for its threads and log lines."""
        self._settings = settings
        self._topic = topic
        self._name = name
        # Replaced as a whole, never changed.
        self.partitions: Mapping[Partition, P] = {}
        self._failure: Exception | None = None
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []

    def assign(self, fresh: Mapping[Partition, P]) -> None:
        """Start to read the state of partitions of the source, in a separate thread. Returns immediately."""
        self.partitions = {**self.partitions, **fresh}
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=self._restore, args=(fresh,), name=self._name, daemon=True))
        self._threads[-1].start()

    def ready(self, partition: Partition) -> bool:
        """Whether the state of a partition is read. Raises the error that prevented it: UserError for a missing right,
        Fatal, TopicRecreated."""
        if self._failure is not None:
            raise self._failure
        state = self.partitions.get(partition)
        return state is not None and state.ready

    def problem(self) -> str:
        """Which partitions the topic lacks; empty if it has all."""
        return "; ".join(state.lacks for state in self.partitions.values() if state.lacks)

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """Forget partitions; their state is read again when they are assigned again."""
        gone = set(partitions)
        self.partitions = {partition: state for partition, state in self.partitions.items() if partition not in gone}

    def close(self) -> None:
        """End the threads."""
        self._closed.set()
        self.partitions = {}
        for thread in self._threads:
            thread.join(JOIN_SECONDS)

    def _restore(self, states: Mapping[Partition, P]) -> None:
        try:
            _Reading(self._settings, self._topic, self._name, states, self._wanted, self._closed).run()
        except Exception as error:
            # `ready` raises it on the poll thread.
            self._failure = error

    def _wanted(self, partition: Partition, state: StatePartition) -> bool:
        return self.partitions.get(partition) is state and not self._closed.is_set()


class _Reading:
    """Reads the partitions of one assignment from their start to their end as of now.

    The end includes open transactions, and reading waits for them: for uncommitted results of the partition's last
    owner, as the broker makes their offsets wait.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        name: str,
        states: Mapping[Partition, StatePartition],
        wanted: Callable[[Partition, StatePartition], bool],
        closed: threading.Event,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._name = name
        self._states = states
        self._wanted = wanted
        self._closed = closed
        # By partition of this topic: the partition of the source that it belongs to, and where it ends.
        self._left: dict[Partition, Partition] = {(self._topic, source[1]): source for source in states}
        self._ends: dict[Partition, int] = {}

    def run(self) -> None:
        """Read until all partitions are read, or none is wanted. Raises UserError for a missing right, Fatal,
        TopicRecreated if the topic is created again meanwhile.

        Waits for a partition that the topic lacks: partitions may be added to the source first. Publishing its results
        without their state, or with that of another partition, would let an old result replace a newer one.
        """
        while self._going():
            found = self._ask()
            self._read({partition: marks for partition, marks in found.items() if partition in self._left})
            if self._going():
                self._closed.wait(LACKING_SECONDS)

    def _read(self, found: Mapping[Partition, Watermarks]) -> None:
        if not found:
            return
        ids = TopicIds(self._settings.kafka, [self._topic])
        # Out of range the reader resumes at the first record: compaction may move the start while it reads.
        with TopicReader(self._settings.kafka) as reader:
            reader.assign(found)
            while self._going() and not self._left.keys().isdisjoint(found):
                reader.check(ids.recreated())
                chunk = reader.read(CHUNK, WAIT_SECONDS)
                for message in chunk.messages:
                    self._learn(message)
                for partition, position in chunk.positions.next.items():
                    self._reached(partition, position)

    def _ask(self) -> dict[Partition, Watermarks]:
        """Where each partition that exists starts and ends; asked until the broker answers. Empty ones are ready."""
        asked: dict[Partition, Watermarks | None] = {}
        delays = backoff(self._settings.retry)
        asker = clients.reader(self._settings.kafka, isolation="read_uncommitted")
        try:
            while self._going() and not self._left.keys() <= asked.keys():
                try:
                    for partition in self._left.keys() - asked.keys():
                        asked[partition] = self._marks(asker, partition)
                except DependencyDown as error:
                    log.warning("%s: %s", self._name, error)
                    self._closed.wait(next(delays))
        finally:
            asker.close()
        found = {partition: marks for partition, marks in asked.items() if marks is not None}
        self._ends = {partition: marks.high for partition, marks in found.items()}
        for partition, marks in found.items():
            self._reached(partition, marks.low)
        return found

    def _marks(self, asker: Consumer, partition: Partition) -> Watermarks | None:
        """None if the topic lacks the partition."""
        source = self._left[partition]
        state = self._states[source]
        try:
            marks = watermarks(asker, self._settings.kafka, partition)
        except TopicMissing:
            if not state.lacks:
                state.lacks = (
                    f"{source[0]}:{source[1]} waits: topic {self._topic} has no partition {partition[1]}, "
                    "`tagbus topics create --mend` adds it"
                )
                log.warning("%s: %s", self._name, state.lacks)
            return None
        state.lacks = ""
        return marks

    def _going(self) -> bool:
        self._left = {
            partition: source for partition, source in self._left.items() if self._wanted(source, self._states[source])
        }
        return bool(self._left)

    def _learn(self, message: Message) -> None:
        source = self._left.get(partition_of(message))
        key, value = message.key(), message.value()
        if source is not None and isinstance(key, bytes) and isinstance(value, bytes | None):
            self._states[source].learn(key, value)

    def _reached(self, partition: Partition, position: int) -> None:
        if position >= self._ends[partition] and partition in self._left:
            source = self._left.pop(partition)
            self._states[source].ready = True
            log.info("%s: partition=%d contents=%d", self._name, partition[1], len(self._states[source]))
