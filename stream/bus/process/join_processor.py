"""The joiner: turn each decision on `feedback` into the exemplar of its content, on `exemplars`.

The history of a content is kept on `feedback.state`, written in the same transaction and read when a partition is
assigned, rather than replayed from the log: `feedback` may be trimmed by time, a start costs as much as there are
contents, not decisions, and a withdrawn content's text is deleted with its key.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from tagbus.stream import telemetry
from tagbus.stream.bus.process.dead_letters import DeadLetterTopic
from tagbus.stream.bus.process.decisions import BatchDecisions, PartitionDecisions
from tagbus.stream.bus.process.state_topic import StateTopic
from tagbus.stream.bus.processor import Batch, Outgoing, Processor, RecordOutcome, Source, Stall, WorkerTopics
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Tombstone, decode_decision, source_headers
from tagbus.stream.contract.decision import Decision
from tagbus.stream.contract.events import Exemplar, exemplar_key
from tagbus.stream.contract.registry import Schemas
from tagbus.stream.errors import Poison
from tagbus.stream.feedback import history
from tagbus.stream.kafka.message import Partition

Headers = tuple[tuple[str, bytes | None], ...]

# The outcome of a decision: an exemplar; nothing new; it waits for the content's text; it is a duplicate.
JOINED: Final = "joined"
UNCHANGED: Final = "unchanged"
WAITING: Final = "waiting"
DUPLICATE: Final = "duplicate"


class JoinProcessor(Processor):
    """Decisions to exemplars."""

    def __init__(self, settings: Settings) -> None:
        topics = settings.topics
        self.topics = WorkerTopics(
            topics.feedback, (topics.exemplars,), topics.feedback_dead_letters, (topics.feedback_state,)
        )
        self._exemplars = topics.exemplars
        self._limit = settings.batch.record_bytes
        self._dead_letters = DeadLetterTopic(topics.feedback_dead_letters, self._limit)
        self._schemas = Schemas(settings.registry, topics)
        self._states: StateTopic[PartitionDecisions] = StateTopic(settings, topics.feedback_state, "feedback")
        # At least once, a crash may separate a decision's state from its exemplar: the redelivered decision repairs
        # that.
        self._repeats = settings.kafka.delivery == "at_least_once"
        # Partition, epoch and first offset of committed batches.
        self._committed: deque[tuple[Partition, int, int]] = deque()

    def prepare(self) -> None:
        """Register the schemas of results. Raises UserError, and DependencyDown when the registry does not answer."""
        self._schemas.register()

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Read the state of assigned partitions, in a separate thread."""
        if fresh := {partition: PartitionDecisions() for partition in partitions}:
            self._states.assign(fresh)

    def ready(self, partition: Partition) -> bool:
        """Whether it is read. Raises the error that prevented it."""
        return self._states.ready(partition)

    def problem(self) -> str:
        """Which partitions the state topic lacks."""
        return self._states.problem()

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """Forget the state of revoked partitions."""
        self._states.revoke(partitions)

    def close(self) -> None:
        """End the threads that read the state."""
        self._states.close()

    def waiting(self) -> int:
        """How many contents of this process's partitions wait for their text."""
        return sum(state.waiting for state in self._states.partitions.values())

    def owns(self, number: int) -> bool:
        """Whether this process holds the partition of `feedback` with this number."""
        return (self.topics.source, number) in self._states.partitions

    async def process(self, batch: Batch, stall: Stall) -> list[RecordOutcome]:  # noqa: ARG002 - it waits for nothing
        """Join a batch (Processor.process). It awaits nothing, so batches of a partition run one after the other."""
        view = self._open(batch)
        outcomes = [
            self._refused(source, batch.refused[index]) if index in batch.refused else self._outcome(view, source)
            for index, source in enumerate(batch.sources)
        ]
        telemetry.FEEDBACK_WAITING.set(self.waiting())
        return outcomes

    def published(self, batch: Batch, outcomes: Sequence[RecordOutcome]) -> None:  # noqa: ARG002 - all are kept
        """Note that a batch is committed; takes effect at the next one."""
        self._committed.append((batch.partition, batch.epoch, batch.sources[0].offset))

    def _open(self, batch: Batch) -> BatchDecisions:
        while self._committed:
            partition, epoch, offset = self._committed.popleft()
            if (state := self._states.partitions.get(partition)) is not None:
                state.commit(epoch, offset)
        state = self._states.partitions.get(batch.partition)
        if state is None:
            # Revoked meanwhile: the batch's outcomes are dropped.
            state = PartitionDecisions()
        return state.open(batch.epoch, batch.sources[0].offset)

    def _refused(self, source: Source, error: Poison) -> RecordOutcome:
        """A dead letter for a decision whose records Kafka refuses."""
        return self._dead_letters.letter(source, error)

    def _outcome(self, view: BatchDecisions, source: Source) -> RecordOutcome:
        try:
            event = decode_decision(source.record)
            if isinstance(event, Tombstone):
                return self._withdrawn(view, source, event.key)
            return self._joined(view, source, event)
        except Poison as error:
            return self._dead_letters.letter(source, error)

    def _joined(self, view: BatchDecisions, source: Source, decision: Decision) -> RecordOutcome:
        before = view.get(decision.id)
        now = history.after(before, decision, self._limit)
        time = decision.time.timestamp()
        known = history.exemplar(decision.id, now)
        headers = tuple(source_headers(source.topic, source.partition, source.offset))
        if now is before:
            outgoing = (self._exemplar(decision.id, known, headers),) if self._repeats else ()
            return RecordOutcome(DUPLICATE, outgoing, "", time)
        view.put(decision.id, value := now.write())
        outgoing = (self._state(decision.id, value, headers, source.partition),)
        if known != history.exemplar(decision.id, before):
            return RecordOutcome(JOINED, (*outgoing, self._exemplar(decision.id, known, headers)), "", time)
        return RecordOutcome(WAITING if now.waits else UNCHANGED, outgoing, "", time)

    def _withdrawn(self, view: BatchDecisions, source: Source, content_id: str) -> RecordOutcome:
        """Nulls for the state of a withdrawn content and for its exemplar, which may be older than this topic."""
        view.put(content_id, None)
        headers = tuple(source_headers(source.topic, source.partition, source.offset))
        outgoing = (
            self._state(content_id, None, headers, source.partition),
            self._exemplar(content_id, None, headers),
        )
        return RecordOutcome("withdrawn", outgoing, "", source.timestamp)

    def _state(self, content_id: str, value: bytes | None, headers: Headers, number: int) -> Outgoing:
        return Outgoing(self.topics.state[0], content_id.encode(), value, headers, number)

    def _exemplar(self, content_id: str, known: Exemplar | None, headers: Headers) -> Outgoing:
        value = None if known is None else self._schemas.encode(self._exemplars, known)
        return Outgoing(self._exemplars, exemplar_key(content_id, "people").encode(), value, headers)
