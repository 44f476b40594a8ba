"""Detect partitions that librdkafka should fetch and never reports on, so that they are assigned again.

For each partition that it fetches it promptly returns a record or the end. For one that is assigned while its topic is
missing it may return neither, ever, even after the topic is back: seen with 2.16 in six of six tries. So it may be with
a topic that is deleted and created again, which only another client can read (kafka/identity.py).
"""

import logging
import time
from collections.abc import Iterable, Sequence

from confluent_kafka import KafkaError, Message

from tagbus.stream.bus.consume.batching import Buffers
from tagbus.stream.kafka.message import Partition, partition_of

log = logging.getLogger(__name__)

# How long a partition may be silent while the client answers for all others: the end arrives within fetch.wait.max.ms.
SILENT_SECONDS = 10.0
# Between two calls: a longer gap means that the client was not polled, or that the process was suspended.
GAP_SECONDS = 2.0


class Silence:
    """Tracks since when each unreported partition is silent. Belongs to the poll thread."""

    def __init__(self) -> None:
        self._since: dict[Partition, float] = {}
        self._listened = 0.0

    def expect(self, partitions: Iterable[Partition], seconds: float | None = None) -> None:
        """Expect a report on partitions that are fetched from now on, within SILENT_SECONDS, or sooner."""
        self._since |= dict.fromkeys(partitions, time.monotonic() - _waited(seconds))

    def hasten(self, seconds: float) -> None:
        """Expect all reports that are due within so many seconds."""
        latest = time.monotonic() - _waited(seconds)
        self._since = {partition: min(since, latest) for partition, since in self._since.items()}

    def expects(self, partition: Partition) -> bool:
        """Whether a report on a partition is still due."""
        return partition in self._since

    def listen(self, messages: Sequence[Message], buffers: Buffers, *, drained: bool) -> list[Partition]:
        """The partitions to fetch again, after a call that returned these messages.

        `drained`: brokers answer, and the client returned all it had. Otherwise the time does not count; nor does it
        for a paused partition.
        """
        if not self._since:
            return []
        for message in messages:
            error = message.error()
            if error is None or error.code() == KafkaError._PARTITION_EOF:
                self._since.pop(partition_of(message), None)
        now = time.monotonic()
        counts, self._listened = drained and now - self._listened < GAP_SECONDS, now
        waiting = {partition: since for partition, since in self._since.items() if partition in buffers}
        self._since = {
            partition: since if counts and not buffers[partition].paused else now
            for partition, since in waiting.items()
        }
        silent = [partition for partition, since in self._since.items() if now - since > SILENT_SECONDS]
        for topic, number in silent:
            log.warning("offsets: topic=%s partition=%d is silent", topic, number)
        self.expect(silent)
        return silent


def _waited(seconds: float | None) -> float:
    """How long a partition counts as silent already, of which a report is due within so many seconds."""
    return 0.0 if seconds is None else SILENT_SECONDS - min(seconds, SILENT_SECONDS)
