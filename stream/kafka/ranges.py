"""A bounded range of a topic: all current records, or those from a time on."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from confluent_kafka import Message

from tagbus.stream.config import KafkaSettings
from tagbus.stream.errors import DependencyDown
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.message import offset_of, partition_of
from tagbus.stream.kafka.metadata import Watermarks, list_partitions, offset_at, watermarks
from tagbus.stream.kafka.reader import TopicReader

# How long a broker may return nothing before the end of the range is reached.
SILENCE_SECONDS = 30.0
CHUNK = 500
WAIT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """Records of a topic: from `starts` to before `ends`, offsets by partition number."""

    topic: str
    starts: Mapping[int, int]
    ends: Mapping[int, int]

    @property
    def offsets(self) -> int:
        """The maximum number of records."""
        return sum(max(0, end - self.starts[partition]) for partition, end in self.ends.items())

    def after(self, starts: Mapping[int, int]) -> "OffsetRange":
        """The same range, limited to these partitions and starting no earlier than these offsets."""
        later = {partition: max(self.starts[partition], start) for partition, start in starts.items()}
        return OffsetRange(self.topic, later, {partition: self.ends[partition] for partition in later})


def current_range(
    kafka: KafkaSettings, topic: str, since: datetime | None = None, until: datetime | None = None
) -> OffsetRange:
    """The range of all current records of a topic, or from `since` on, or to before `until`.

    Raises TopicMissing, UserError if a right is missing, DependencyDown if no broker answers.
    """
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    client = clients.reader(kafka)
    try:
        for partition in list_partitions(client, kafka, topic):
            number = partition[1]
            starts[number], ends[number] = watermarks(client, kafka, partition)
            if since is not None:
                starts[number] = offset_at(client, kafka, partition, since)
            if until is not None:
                ends[number] = min(ends[number], offset_at(client, kafka, partition, until))
    finally:
        client.close()
    return OffsetRange(topic, starts, ends)


def read_all(kafka: KafkaSettings, topic: str, since: datetime | None = None) -> Iterator[Message]:
    """Every committed record that is now on a topic, or from `since` on. Raises as `read_range` does."""
    yield from read_range(kafka, current_range(kafka, topic, since))


def read_range(kafka: KafkaSettings, wanted: OffsetRange) -> Iterator[Message]:
    """Every committed record of a range, in order within each partition.

    Raises as TopicReader.read does, and DependencyDown if nothing arrives for SILENCE_SECONDS.
    """
    with TopicReader(kafka) as reader:
        reader.assign(
            {
                (wanted.topic, number): Watermarks(wanted.starts[number], end)
                for number, end in wanted.ends.items()
                if wanted.starts[number] < end
            }
        )
        heard, last = time.monotonic(), reader.positions.copy()
        while not reader.positions.caught_up():
            chunk = reader.read(CHUNK, WAIT_SECONDS)
            for message in chunk.messages:
                if offset_of(message) < wanted.ends[partition_of(message)[1]]:
                    yield message
            if chunk.positions != last:
                heard, last = time.monotonic(), chunk.positions
            elif time.monotonic() - heard > SILENCE_SECONDS:
                raise DependencyDown(f"topic {wanted.topic}: no record for {SILENCE_SECONDS:.0f} s before its end")
