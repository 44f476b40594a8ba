"""A corpus read from the topics `tags` and `exemplars` of the configured Kafka cluster: people's decisions only."""

from collections.abc import Iterator
from dataclasses import dataclass

from tagbus.models.data.splits import Split, digest, split_of
from tagbus.models.data.texts import text_of
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Tombstone, decode_exemplar, decode_tag
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.errors import Poison
from tagbus.stream.kafka.message import record_of
from tagbus.stream.kafka.ranges import current_range, read_all, read_range


@dataclass(frozen=True, slots=True)
class TopicCorpus:
    """The topics up to their current end.

    Exemplars are read twice: first to find the last record of each key, keeping 8 bytes and an offset per key, then to
    yield those records.
    """

    settings: Settings

    def tags(self) -> list[Tag]:
        """The tags that are not retired, or that others have replaced."""
        found: dict[str, Tag] = {}
        topic = self.settings.topics.tags
        for message in read_all(self.settings.kafka, topic):
            try:
                event = decode_tag(record_of(message))
            except Poison:
                continue  # memory skips it too
            if isinstance(event, Tombstone):
                found.pop(event.key, None)
            else:
                found[event.id] = event
        return list(found.values())

    def exemplars(self, split: Split) -> Iterator[Exemplar]:
        """People's decisions that have a text and an accepted tag; 1 in 50 is for validation, 1 in 50 for the test."""
        return (item for item in self.decided() if split_of(item.id) == split)

    def decided(self) -> Iterator[Exemplar]:
        """All of them."""
        what = current_range(self.settings.kafka, self.settings.topics.exemplars)
        last: dict[bytes, tuple[int, int]] = {}
        for message in read_range(self.settings.kafka, what):
            last[digest(record_of(message).key or b"")] = (message.partition() or 0, message.offset() or 0)
        for message in read_range(self.settings.kafka, what):
            record = record_of(message)
            if last[digest(record.key or b"")] != (message.partition() or 0, message.offset() or 0):
                continue
            try:
                event = decode_exemplar(record)
            except Poison:
                continue
            if isinstance(event, Exemplar) and _usable(event):
                yield event


def _usable(item: Exemplar) -> bool:
    return item.source == "people" and bool(item.accepted and text_of(item))
