"""Partitions that librdkafka was to fetch and says nothing of: they are given to it again.

Of each partition that is fetched it tells a record or the end, at once. Of one that is assigned while its topic is away
it may tell neither, for ever, also when the topic is there again: seen with 2.16 in six of six tries.
"""

import logging
import time
from collections.abc import Iterable, Sequence

from confluent_kafka import KafkaError, Message

from tagbus.stream.bus.consume.batching import Buffers
from tagbus.stream.kafka.message import Partition, partition_of

log = logging.getLogger(__name__)

# How long a partition may be silent while the client answers for all others: the end comes within fetch.wait.max.ms.
SILENT_SECONDS = 10.0
# Between two calls: after more the client was not asked, or the process was suspended.
GAP_SECONDS = 2.0


class Silence:
    """Since when each partition is silent that has told nothing yet. Belongs to the poll thread."""

    def __init__(self) -> None:
        self._since: dict[Partition, float] = {}
        self._listened = 0.0

    def expect(self, partitions: Iterable[Partition]) -> None:
        """Partitions are fetched from now on."""
        self._since |= dict.fromkeys(partitions, time.monotonic())

    def listen(self, messages: Sequence[Message], buffers: Buffers, *, drained: bool) -> list[Partition]:
        """The partitions that are to be fetched anew, after a call that returned these messages.

        `drained`: brokers answer, and all was returned that the client had. Otherwise the time does not count, nor does
        it for a partition that is paused.
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
            log.warning("offsets: topic=%s partition=%d silent for %.0f s, fetched anew", topic, number, SILENT_SECONDS)
        self.expect(silent)
        return silent
