"""The memory topics on Kafka: their partitions, their watermarks, and their owner."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tagbus.stream.config import Settings
from tagbus.stream.errors import TopicMissing
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.message import Partition
from tagbus.stream.kafka.metadata import Watermarks, cluster_id, list_partitions, watermarks
from tagbus.stream.memory.kinds import KINDS, Kind

Marks = dict[Partition, Watermarks]


def beyond(positions: Mapping[Partition, int], marks: Marks) -> str:
    """The first of these next offsets that its topic has not reached, so that it is of another topic; empty without
    one."""
    for partition, at in positions.items():
        found = marks.get(partition)
        if found is None or found.high < at:
            topic, number = partition
            ends = "does not exist" if found is None else f"ends at {found.high}"
            return f"it was built from another topic {topic}: up to {topic}:{number}:{at}, which {ends}"
    return ""


class MemoryTopics:
    """A client that queries metadata of the memory topics and reads no records. A context manager; every method blocks.

    The methods raise TopicMissing for a required topic that does not exist, UserError if a right is missing,
    DependencyDown if no broker answers.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer = clients.reader(settings.kafka)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def owner(self) -> str:
        """The id of the installation that owns these topics; it distinguishes two that share a Qdrant server."""
        return f"cluster {cluster_id(self._consumer, self._settings.kafka)}, topic {self._settings.topics.tags}"

    def marks(self) -> Marks:
        """The current watermarks of each partition."""
        kafka = self._settings.kafka
        return {
            partition: watermarks(self._consumer, kafka, partition)
            for kind in KINDS.values()
            for partition in self._list(kind)
        }

    def close(self) -> None:
        """Close the client."""
        self._consumer.close()

    def _list(self, kind: Kind) -> list[Partition]:
        try:
            return list_partitions(self._consumer, self._settings.kafka, kind.topic(self._settings.topics))
        except TopicMissing:
            if kind.optional:
                return []
            raise
