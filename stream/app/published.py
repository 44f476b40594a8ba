"""The current tags and exemplars of their topics, for commands that compare files with them."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Tombstone, decode_exemplar, decode_tag
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.errors import Poison
from tagbus.stream.kafka.message import record_of
from tagbus.stream.kafka.ranges import read_all


@dataclass(slots=True)
class Unreadable:
    """Counts records that are not tags; memory skips them as well."""

    count: int = 0


def tags(settings: Settings, unreadable: Unreadable | None = None) -> Iterator[tuple[str, Tag | None, str]]:
    """Id, tag and position of every record up to the current end; the tag is None if it is retired.

    Raises TopicMissing, UserError if a right is missing, DependencyDown if no broker answers.
    """
    for message in read_all(settings.kafka, settings.topics.tags):
        position = f"{message.topic()}:{message.partition()}:{message.offset()}"
        try:
            event = decode_tag(record_of(message))
        except Poison:
            if unreadable is not None:
                unreadable.count += 1
            continue
        if isinstance(event, Tombstone):
            yield event.key, None, position
        else:
            yield event.id, event, position


def current_tags(settings: Settings, ids: Collection[str]) -> dict[str, Tag]:
    """The subset of these tags that is on the topic: in force, or retired in favour of others. Raises as `tags`
    does."""
    found: dict[str, Tag] = {}
    for tag_id, tag, _ in tags(settings):
        if tag_id in ids and tag is not None:
            found[tag_id] = tag
        elif tag_id in ids:
            found.pop(tag_id, None)
    return found


def exemplars(settings: Settings) -> Iterator[tuple[str, Exemplar | None]]:
    """Key and exemplar of every record up to the current end; the exemplar is None if it is withdrawn. Records that are
    not exemplars are skipped. Raises as `tags` does."""
    for message in read_all(settings.kafka, settings.topics.exemplars):
        try:
            event = decode_exemplar(record_of(message))
        except Poison:
            continue
        if isinstance(event, Tombstone):
            yield event.key, None
        else:
            yield event.key, event
