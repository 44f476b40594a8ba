"""Read the current version of a content from the topic `content`."""

import time
from datetime import datetime
from typing import Final

from tagbus.stream.app import console
from tagbus.stream.bus.process.stamps import Stamp, older, stamp_of, withdrawal, withdrawn
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Tombstone, decode_content
from tagbus.stream.contract.events import Content
from tagbus.stream.errors import Poison, UserError, shorten
from tagbus.stream.kafka.message import record_of, recorded
from tagbus.stream.kafka.ranges import OffsetRange, current_range, read_range

# The maximum number of records to read, newest first: 20 s with a fast broker.
MOST: Final = 1_000_000


def newest_content(settings: Settings, content_id: str, since: datetime | None = None) -> Content:
    """The newest version of a content among the newest 1,000,000 records of the topic, or those since a time.

    Raises UserError if there is none or it was withdrawn, and as `read_range` does.
    """
    whole = current_range(settings.kafka, settings.topics.content, since)
    part = _newest(whole)
    found: Content | None = None
    stamp: Stamp = 0
    gone = False
    now = time.time()
    with console.bar(f"reading {part.topic}", part.offsets) as bar:
        for message in read_range(settings.kafka, part):
            bar.advance(1)
            if (key := message.key()) is not None and key != content_id.encode():
                continue
            try:
                event = decode_content(record_of(message))
            except Poison:
                # An invalid record has not replaced the content of that key.
                continue
            if isinstance(event, Tombstone):
                found, gone, stamp = None, True, withdrawn(stamp, withdrawal(recorded(message), now))
            elif event.id == content_id and not older(own := stamp_of(event.version, event.time), stamp):
                found, gone, stamp = event, False, own or stamp
    if found is None:
        raise UserError(_missing(content_id, whole, part, withdrawn_=gone))
    return found


def _newest(whole: OffsetRange) -> OffsetRange:
    each = MOST // max(1, len(whole.ends))
    return whole.after({number: end - each for number, end in whole.ends.items()})


def _missing(content_id: str, whole: OffsetRange, part: OffsetRange, *, withdrawn_: bool) -> str:
    name = shorten(content_id)
    if withdrawn_:
        return f"content {name} was withdrawn from topic {whole.topic}; explain a FILE that holds it"
    read = f"the newest {part.offsets} records" if part.offsets < whole.offsets else "the records"
    return f"{name} is neither a file nor a content among {read} of topic {whole.topic}, expected an id or a FILE"
