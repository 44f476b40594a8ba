"""The current tags and exemplars of their topics, for commands that compare files with them."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TypeVar

from confluent_kafka import Message

from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record, Tombstone, decode_exemplar, decode_tag
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.errors import Poison
from tagbus.stream.index.latest import Latest
from tagbus.stream.kafka.message import offset_of, partition_of, record_of
from tagbus.stream.kafka.ranges import current_range, read_range
from tagbus.stream.memory.store import Source

E = TypeVar("E", Tag, Exemplar)


@dataclass(slots=True)
class Unreadable:
    """Counts records that are not tags; memory skips them as well."""

    count: int = 0


def tags(settings: Settings, unreadable: Unreadable | None = None) -> Iterator[tuple[str, Tag | None, str]]:
    """Id, tag and position of each tag's last record up to the current end; the tag is None if it is retired.

    Raises TopicMissing, UserError if a right is missing, DependencyDown if no broker answers.
    """
    for event, message in _last(settings, settings.topics.tags, decode_tag, unreadable or Unreadable()):
        position = f"{message.topic()}:{message.partition()}:{message.offset()}"
        if isinstance(event, Tombstone):
            yield event.key, None, position
        else:
            yield event.id, event, position


def current_tags(settings: Settings, ids: Collection[str]) -> dict[str, Tag]:
    """The subset of these tags that is on the topic: in force, or retired in favour of others. Raises as `tags`
    does."""
    return {tag_id: tag for tag_id, tag, _ in tags(settings) if tag is not None and tag_id in ids}


def exemplars(settings: Settings) -> Iterator[tuple[str, Exemplar | None]]:
    """Key and exemplar of each key's last record up to the current end; the exemplar is None if it is withdrawn.
    Records that are not exemplars are skipped. Raises as `tags` does."""
    for event, _ in _last(settings, settings.topics.exemplars, decode_exemplar, Unreadable()):
        if isinstance(event, Tombstone):
            yield event.key, None
        else:
            yield event.key, event


def _last(
    settings: Settings, topic: str, decode: Callable[[Record], E | Tombstone], unreadable: Unreadable
) -> Iterator[tuple[E | Tombstone, Message]]:
    """The last record of each key, as memory holds it: one that cannot be read leaves the one before it.

    The topic is read twice: once partitions were added a key has records in two, which arrive in no order.
    """
    wanted = current_range(settings.kafka, topic)

    def found(unreadable: Unreadable) -> Iterator[tuple[E | Tombstone, Message]]:
        for message in read_range(settings.kafka, wanted):
            try:
                yield decode(record_of(message)), message
            except Poison:
                unreadable.count += 1

    latest = Latest()
    for event, message in found(unreadable):
        latest.add(_key(event), _source(message))
    lasts = latest.settled()
    for event, message in found(Unreadable()):
        if lasts.is_last(_key(event), _source(message)):
            yield event, message


def _key(event: Tag | Exemplar | Tombstone) -> str:
    return event.id if isinstance(event, Tag) else event.key


def _source(message: Message) -> Source:
    return Source(partition_of(message)[1], offset_of(message), message.timestamp()[1])
