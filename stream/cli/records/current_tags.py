"""Tags as their topic holds them now, for commands that are about a few of them."""

from collections.abc import Collection

from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import decode_tag
from tagbus.stream.contract.events import Tag
from tagbus.stream.errors import Poison
from tagbus.stream.kafka.message import record_of
from tagbus.stream.kafka.ranges import read_all


def current_tags(settings: Settings, ids: Collection[str]) -> dict[str, Tag]:
    """Those of these tags that are on the topic: in force, or retired in favour of others. The topic is read whole."""
    wanted = {tag_id.encode(): tag_id for tag_id in ids}
    found: dict[str, Tag] = {}
    for message in read_all(settings.kafka, settings.topics.tags):
        tag_id = wanted.get(message.key() or b"")
        if tag_id is None:
            continue
        try:
            event = decode_tag(record_of(message))
        except Poison:
            continue  # memory skips it too
        if isinstance(event, Tag):
            found[tag_id] = event
        else:
            found.pop(tag_id, None)
    return found
