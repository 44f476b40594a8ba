"""Partitions that librdkafka has stopped to fetch: the group has no offset of theirs, or one that is gone.

With auto.offset.reset=error it says so instead of choosing itself. Such a partition can not be sought (librdkafka
issue 2961: `_STATE`), it is taken out of the assignment and put in again where it shall begin.

Where offsets have gone back (a topic that was created again) the partition begins as one that has just come. What was
read before is published first: it stands nowhere else any more.
"""

import logging
import time
from collections.abc import Callable, Mapping

from confluent_kafka import OFFSET_STORED, Consumer, KafkaException, TopicPartition

from tagbus.stream.bus.consume.buffer import PartitionBuffer
from tagbus.stream.bus.consume.crash_loop import Commit
from tagbus.stream.bus.consume.span import ASK_SECONDS, RangeBounds
from tagbus.stream.bus.in_flight import InFlight
from tagbus.stream.config import Settings
from tagbus.stream.errors import DependencyDown, Fatal
from tagbus.stream.kafka.errors import error_of, map_kafka_errors
from tagbus.stream.kafka.logs import report
from tagbus.stream.kafka.message import Partition

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.2


class OffsetResets:
    """The partitions that wait to begin somewhere. Belongs to the poll thread."""

    def __init__(
        self,
        settings: Settings,
        consumer: Consumer,
        in_flight: InFlight,
        bounds: RangeBounds,
        commit: Commit,
        anew: Callable[[Partition], None],
    ) -> None:
        """`anew` is told of a partition whose offsets have gone back, before its records come."""
        self._kafka = settings.kafka
        self._topic = settings.topics.content
        self._consumer = consumer
        self._in_flight = in_flight
        self._bounds = bounds
        self._commit = commit
        self._anew = anew
        strategy = settings.kafka.options.get("partition.assignment.strategy", "cooperative-sticky")
        self._eager = settings.kafka.group_protocol == "classic" and strategy != "cooperative-sticky"
        self._waiting: set[Partition] = set()
        self._next_try = 0.0

    def add(self, partition: Partition) -> None:
        """librdkafka says that it does not know where to read on."""
        self._waiting.add(partition)

    def serve(self, buffers: Mapping[Partition, PartitionBuffer]) -> None:
        """Have what waits begin; where that fails, later.

        Raises OffsetLost where `kafka.out_of_range` says to stop, UserError for an offset that a backfill names and
        the broker has not.
        """
        if not self._waiting or time.monotonic() < self._next_try:
            return
        self._next_try = time.monotonic() + PAUSE_SECONDS
        try:
            with map_kafka_errors(self._kafka, self._topic):
                self._begin(buffers)
        except KafkaException as exception:
            report(error_of(exception))
            return
        except DependencyDown as error:
            log.warning("restart: %s", error)
            return
        if not self._waiting:
            self._next_try = 0.0

    def _begin(self, buffers: Mapping[Partition, PartitionBuffer]) -> None:
        self._waiting &= buffers.keys()
        partitions = [partition for partition in self._waiting if self._published(partition, buffers[partition])]
        # The last offset that was read, -1 where none was.
        read = {partition: buffer.last for partition, buffer in buffers.items()}
        # All questions come before the first partition is fetched: behind a fetch each would take 500 ms.
        starts = [self._start(TopicPartition(*partition), read) for partition in partitions]
        back = [start for start in starts if 0 <= start.offset <= read[start.topic, start.partition]]
        # What begins at a moment or at the end begins there again, whoever has the partition then.
        fresh = [start for start in starts if start.offset >= 0 and read[start.topic, start.partition] < 0]
        error = self._commit([*fresh, *back]) if fresh or back else None
        if error is not None:
            raise KafkaException(error)
        for partition in ((start.topic, start.partition) for start in back):
            self._bounds.fix_again(partition)
            self._anew(partition)
        self._assign(starts, read)
        self._waiting.difference_update(partitions)

    def _published(self, partition: Partition, buffer: PartitionBuffer) -> bool:
        """Whether nothing that was read of it waits or is under way."""
        return not buffer.records and self._in_flight.first(partition) is None

    def _assign(self, starts: list[TopicPartition], read: Mapping[Partition, int]) -> None:
        """Have the partitions fetched from there."""
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
                raise Fatal(f"partitions that were taken out of the assignment do not go in again: {reason}") from None

    def _start(self, asked: TopicPartition, read: Mapping[Partition, int]) -> TopicPartition:
        partition = (asked.topic, asked.partition)
        if read[partition] >= 0:
            offset = self._bounds.beyond(partition, read[partition] + 1)
        else:
            (committed,) = self._consumer.committed([asked], ASK_SECONDS)
            if committed.error is not None:
                raise KafkaException(committed.error)
            offset = (
                self._bounds.begin(partition)
                if committed.offset < 0
                else self._bounds.again(partition, committed.offset)
            )
        log.info("restart: topic=%s partition=%d offset=%d", *partition, offset)
        return TopicPartition(*partition, offset)
