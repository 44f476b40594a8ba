"""Duplicates: contents that arrive again unchanged, after their tags were committed.

A duplicate has the same id and the same value in every field, in the same assignment of the same partition. Only the
last content of an id counts, so a content that changed in between is never taken for a duplicate.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from operator import attrgetter

from pydantic_core import to_json

from tagbus.stream.bus.process.observed import Observed
from tagbus.stream.bus.process.recent import Recent
from tagbus.stream.bus.processor import Batch, RecordOutcome
from tagbus.stream.contract.events import Content
from tagbus.stream.kafka.message import Partition

# The number of contents to remember, at 250 bytes each.
REMEMBERED = 10_000

# The fields that can be hashed as they are.
_plain = attrgetter(*(name for name in Content.model_fields if name not in {"id", "time", "metadata"}))


@dataclass(slots=True, eq=False)
class Seen:
    """A content that was sent to the tagger. `revision`: the tagger's at that time, None if not known. The publish
    thread sets `published` when the tags are committed."""

    partition: Partition
    epoch: int
    fingerprint: int
    revision: Hashable | None
    published: bool = False


@dataclass(slots=True)
class TaggedOutcome(RecordOutcome):
    """The outcome of a tagged content, its duplicate record, and the counted facts of its result."""

    seen: Seen = field(kw_only=True)
    observed: Observed = field(kw_only=True)


class Duplicates:
    """Remembers the last contents, by id. Belongs to the loop thread."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        """`limit`: number of contents."""
        self._last: Recent[str, Seen] = Recent(limit)

    def __len__(self) -> int:
        return len(self._last)

    def before(self, content: Content, batch: Batch) -> Seen | None:
        """The same content as received before, if its tags are published.

        One from an earlier assignment does not count: another worker may have published a later content since.
        """
        seen = self._last.get(content.id)
        if seen is None or not seen.published:
            return None
        same = (seen.partition, seen.epoch, seen.fingerprint) == (batch.partition, batch.epoch, fingerprint(content))
        return seen if same else None

    def come(self, content: Content, batch: Batch, revision: Hashable | None) -> Seen:
        """Remember a content that is sent to the tagger at this revision."""
        seen = Seen(batch.partition, batch.epoch, fingerprint(content), revision)
        self._last.put(content.id, seen)
        return seen

    def forget(self, content_id: str) -> None:
        """Forget a content that is withdrawn."""
        self._last.drop(content_id)


def fingerprint(content: Content) -> int:
    """All fields of a content but its id, in 64 bits with another key in each process: two contents of one id collide
    at odds of 1 to 1.8e19."""
    time = content.time
    return hash(
        (
            *_plain(content),
            # Equal times in two time zones are published differently.
            None if time is None else (time, time.utcoffset()),
            to_json(content.metadata) if content.metadata else b"",
        )
    )
