"""Partitions that librdkafka stopped fetching.

With auto.offset.reset=error librdkafka reports that the group has no offset of a partition, or one that no longer
exists, instead of choosing where to resume. Such a partition cannot be sought (librdkafka issue 2961: `_STATE`); it is
removed from the assignment and added again at its offset. Where offsets have gone back (a recreated topic) the
partition starts as if it had just been assigned, after everything read before is published: those records exist nowhere
else.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Final, NoReturn

from confluent_kafka import OFFSET_BEGINNING, OFFSET_STORED, Consumer, KafkaException, Message, TopicPartition

from tagbus.stream.bus.consume.batching import Buffers, PartitionBuffer
from tagbus.stream.bus.consume.bounds import ASK_SECONDS, RangeBounds
from tagbus.stream.bus.consume.crash_loop import Commit
from tagbus.stream.bus.consume.silence import Silence
from tagbus.stream.bus.in_flight import InFlight
from tagbus.stream.errors import DependencyDown, Fatal, TopicRecreated
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.clients import ASSIGNOR
from tagbus.stream.kafka.errors import error_of, map_kafka_errors
from tagbus.stream.kafka.logs import report
from tagbus.stream.kafka.message import Partition

log = logging.getLogger(__name__)

# Between two attempts to have a partition fetched again.
PAUSE_SECONDS: Final = 0.2
# How long a partition of a new topic may be silent, and how long again once its leader has answered another client. The
# stream stands still meanwhile: 20 s with the usual silence.
NEW_SECONDS: Final = 5.0
LED_SECONDS: Final = 4.0


class OffsetResets:
    """Restarts partitions that librdkafka stopped fetching. Belongs to the poll thread."""

    def __init__(
        self,
        consumer: Consumer,
        bounds: RangeBounds,
        in_flight: InFlight,
        commit: Commit,
        on_back: Callable[[Partition], None],
    ) -> None:
        """`on_back` is called with a partition whose offsets have gone back, before its records come."""
        self._consumer = consumer
        self._bounds = bounds
        self._in_flight = in_flight
        self._commit = commit
        self._on_back = on_back
        kafka = bounds.kafka
        strategy = kafka.options.get("partition.assignment.strategy", ASSIGNOR)
        self._eager = kafka.group_protocol == "classic" and strategy != ASSIGNOR
        self._waiting: set[Partition] = set()
        # The partitions in `_waiting` whose position the broker refused; the others were silent.
        self._refused: set[Partition] = set()
        self._silence = Silence()
        # The topic was created again, and the client may not have noticed.
        self._topic_is_new = False
        # The last offset of the old topic that was read of each partition, while its records are not published.
        self._old: dict[Partition, int] = {}
        # The partitions that are to report on the new topic, and have not been asked to.
        self._unasked: set[Partition] = set()
        # The silent partitions of the new topic whose leaders have answered another client.
        self._led: set[Partition] = set()
        self._next_try = 0.0

    def add(self, partition: Partition) -> None:
        """Handle librdkafka's report that it does not know where to resume."""
        self._waiting.add(partition)
        self._refused.add(partition)
        self._silence.expect([partition])

    def assigned(self, partitions: Iterable[Partition]) -> None:
        """Expect librdkafka to report on each assigned partition."""
        partitions = list(partitions)
        self._silence.expect(partitions)
        for partition in partitions:
            self._old.pop(partition, None)

    def recreated(self, buffers: Buffers) -> None:
        """The topic was created again: fetch its partitions again from where they are, and expect a report on each. A
        client that does not know the new topic gives none."""
        self._topic_is_new = True
        self._bounds.recreated()
        self._old = {partition: buffer.last for partition, buffer in buffers.items()}
        self._unasked = {partition for partition in buffers if not self._silence.expects(partition)}
        self._silence.hasten(NEW_SECONDS)

    def listen(self, messages: Sequence[Message], buffers: Buffers, *, drained: bool) -> None:
        """Take in the messages that librdkafka returned; see Silence."""
        self._waiting.update(self._silence.listen(messages, buffers, drained=drained))
        self._led = {partition for partition in self._led if self._silence.expects(partition)}

    def serve(self, buffers: Buffers) -> None:
        """Have waiting partitions fetched again; failures are retried later.

        Raises OffsetLost as `kafka.out_of_range` says, UserError for an offset that a backfill names and the broker
        does not have, TopicRecreated if this client does not report on a new topic.
        """
        if not (self._waiting or self._unasked) or time.monotonic() < self._next_try:
            return
        self._next_try = time.monotonic() + PAUSE_SECONDS
        try:
            with map_kafka_errors(self._bounds.kafka, self._bounds.topic):
                self._reset(buffers)
        except KafkaException as exception:
            report(error_of(exception))
            return
        except DependencyDown as error:
            log.warning("offsets: %s", error)
            return
        if not self._waiting:
            self._next_try = 0.0

    def _reset(self, buffers: Buffers) -> None:
        self._waiting &= buffers.keys()
        self._refused &= self._waiting
        # A silent partition that has reported since is being fetched, and needs no reset.
        self._waiting -= {one for one in self._waiting - self._refused if not self._silence.expects(one)}
        # The last offset read, -1 for none.
        read = {partition: buffer.last for partition, buffer in buffers.items()}
        self._ask_again(buffers, read)
        partitions = [partition for partition in self._waiting if self._published(partition, buffers[partition])]
        silent = [one for one in partitions if self._topic_is_new and one not in self._refused]
        unreadable = self._unreadable(silent, buffers)
        partitions = [one for one in partitions if one not in silent or one in unreadable]
        if not partitions:
            return
        with self._asking() as bounds:
            # All requests come before the first partition is fetched: behind a fetch each would take 500 ms.
            starts = [self._start(TopicPartition(*partition), read, bounds) for partition in partitions]
            if unreadable:
                self._leave(starts, bounds)
            self._fetch(starts, read, bounds)
        self._waiting.difference_update(partitions)
        self._refused.difference_update(partitions)

    def _fetch(self, starts: list[TopicPartition], read: Mapping[Partition, int], bounds: RangeBounds) -> None:
        back = [start for start in starts if 0 <= start.offset <= read[start.topic, start.partition]]
        # A partition that starts at a time or at the end starts there again under its next owner.
        fresh = [start for start in starts if start.offset >= 0 and read[start.topic, start.partition] < 0]
        error = self._commit([*fresh, *back]) if fresh or back else None
        if error is not None:
            raise KafkaException(error)
        for partition in ((start.topic, start.partition) for start in back):
            bounds.find_end(partition)
            self._on_back(partition)
        self._assign(starts, read)

    def _ask_again(self, buffers: Buffers, read: Mapping[Partition, int]) -> None:
        """Have partitions of a new topic fetched from where they are, unless their fetch is paused."""
        partitions = [one for one in self._unasked & buffers.keys() if not buffers[one].paused]
        offsets = {one: read[one] + 1 if read[one] >= 0 else OFFSET_STORED for one in partitions}
        if partitions:
            self._assign([TopicPartition(*one, offset) for one, offset in offsets.items()], read)
            self._silence.expect(partitions, NEW_SECONDS)
        self._unasked.difference_update(partitions)
        self._unasked &= buffers.keys()

    @contextmanager
    def _asking(self) -> Iterator[RangeBounds]:
        """The bounds to ask: through another client where this one may not know the leaders of a new topic."""
        if not self._topic_is_new:
            yield self._bounds
            return
        with closing(clients.reader(self._bounds.kafka)) as client:
            yield self._bounds.asked_through(client)

    def _leave(self, starts: list[TopicPartition], bounds: RangeBounds) -> NoReturn:
        """Leave partitions on which this client does not report to their next owner. Commit where they start: a group
        without an offset may start at their end."""
        for start in starts:
            if start.offset == OFFSET_BEGINNING:
                start.offset = bounds.low((start.topic, start.partition))
        if (error := self._commit(starts)) is not None:
            raise KafkaException(error)
        numbers = ", ".join(str(start.partition) for start in starts)
        raise TopicRecreated(self._bounds.topic, f"this process receives nothing of its partition {numbers}")

    def _unreadable(self, silent: Sequence[Partition], buffers: Buffers) -> list[Partition]:
        """The silent partitions of the new topic that this client cannot read: their leaders had answered another one
        before the silence began. Where they had not, they are asked, and the silence begins again: they may have stood
        still, and what was read of the new topic would be read twice."""
        if not silent or self._old_in_work(buffers):
            return []
        if found := [partition for partition in silent if partition in self._led]:
            return found
        with self._asking() as bounds:
            for partition in silent:
                bounds.low(partition)
        self._led.update(silent)
        self._silence.expect(silent, LED_SECONDS)
        self._waiting.difference_update(silent)
        return []

    def _old_in_work(self, buffers: Buffers) -> bool:
        """Whether any partition has unpublished records of the old topic. They exist nowhere else, and a worker that
        ends drops them."""
        for partition in [*self._old]:
            buffer, entry = buffers.get(partition), self._in_flight.first(partition)
            first = entry.batch.sources[0].offset if entry else buffer.head if buffer and buffer.records else None
            if first is None or first > self._old[partition]:
                del self._old[partition]
        return bool(self._old)

    def _published(self, partition: Partition, buffer: PartitionBuffer) -> bool:
        return not buffer.records and self._in_flight.first(partition) is None

    def _assign(self, starts: list[TopicPartition], read: Mapping[Partition, int]) -> None:
        """Have partitions fetched from these offsets."""
        partitions = {(start.topic, start.partition) for start in starts}
        if self._eager:
            kept = [
                TopicPartition(*partition, last + 1 if last >= 0 else OFFSET_STORED)
                for partition, last in read.items()
                if partition not in partitions
            ]
            self._consumer.assign([*kept, *starts])
        elif starts:
            self._consumer.incremental_unassign(starts)
            try:
                self._consumer.incremental_assign(starts)
            except KafkaException as exception:
                reason = error_of(exception).str()
                raise Fatal(
                    f"partitions that were removed from the assignment cannot be added again: {reason}"
                ) from None

    def _start(self, asked: TopicPartition, read: Mapping[Partition, int], bounds: RangeBounds) -> TopicPartition:
        partition = (asked.topic, asked.partition)
        if read[partition] >= 0:
            offset = bounds.reset(partition, read[partition] + 1)
        else:
            (committed,) = self._consumer.committed([asked], ASK_SECONDS)
            if committed.error is not None:
                raise KafkaException(committed.error)
            none = committed.offset < 0
            offset = bounds.start(partition) if none else bounds.resume(partition, committed.offset)
        log.info("offsets: topic=%s partition=%d start=%d", *partition, offset)
        return TopicPartition(*partition, offset)
