"""The memory topics as Kafka has them: their partitions, where those begin and end, and whose they are."""

from types import TracebackType
from typing import Self

from tagbus.stream.config import Settings
from tagbus.stream.errors import TopicMissing
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.message import Partition
from tagbus.stream.kafka.metadata import Watermarks, cluster_id, list_partitions, watermarks
from tagbus.stream.memory.kinds import KINDS, Kind

Marks = dict[Partition, Watermarks]


class MemoryTopics:
    """A client that asks about the memory topics and reads none. A context manager; every method blocks.

    The methods raise TopicMissing for a topic that is needed and not there, UserError if a right is missing,
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
        """The installation that these topics are of: two that share a Qdrant server differ in it."""
        return f"cluster {cluster_id(self._consumer, self._settings.kafka)}, topic {self._settings.topics.tags}"

    def marks(self) -> Marks:
        """Where each partition begins and ends now."""
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
