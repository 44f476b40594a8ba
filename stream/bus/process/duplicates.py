"""The same content again: it is counted, and skipped where a setting says so and nothing could change its result.

The same is: the id and all fields of the content, in the same assignment of the same partition, with the result before
committed. It is the last content of an id that counts, so a duplicate never stands for one that was changed meanwhile.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from operator import attrgetter

from pydantic_core import to_json

from tagbus.stream.bus.process.recent import Recent
from tagbus.stream.bus.processor import Batch, RecordOutcome
from tagbus.stream.contract.events import Content
from tagbus.stream.kafka.message import Partition

# Contents that are remembered; 250 bytes each.
REMEMBERED = 10_000

# Those that hash as they are.
_plain = attrgetter(*(name for name in Content.model_fields if name not in {"id", "time", "metadata"}))


@dataclass(slots=True, eq=False)
class Seen:
    """A content that went to the tagger. `revision`: the tagger's when it was tagged, None: unknown. `published` is set
    by the publish thread, once its tags are committed."""

    partition: Partition
    epoch: int
    fingerprint: int
    revision: Hashable | None
    published: bool = False


@dataclass(slots=True)
class TaggedOutcome(RecordOutcome):
    """The outcome of a content that was tagged, and how the content is remembered to know the same one again."""

    seen: Seen = field(kw_only=True)


class Duplicates:
    """The last contents, by id. Belongs to the loop thread."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        """`limit`: contents at most."""
        self._last: Recent[str, Seen] = Recent(limit)

    def __len__(self) -> int:
        return len(self._last)

    def before(self, content: Content, batch: Batch) -> Seen | None:
        """The same content as it came before and was published; None where it did not.

        One of an earlier assignment does not count: another worker may have published a later content since.
        """
        seen = self._last.get(content.id)
        if seen is None or not seen.published:
            return None
        same = (seen.partition, seen.epoch, seen.fingerprint) == (batch.partition, batch.epoch, fingerprint(content))
        return seen if same else None

    def come(self, content: Content, batch: Batch, revision: Hashable | None) -> Seen:
        """A content goes to the tagger, which is at this revision."""
        seen = Seen(batch.partition, batch.epoch, fingerprint(content), revision)
        self._last.put(content.id, seen)
        return seen

    def forget(self, content_id: str) -> None:
        """The content is withdrawn."""
        self._last.drop(content_id)


def fingerprint(content: Content) -> int:
    """All fields of a content but its id, in 64 bits that are keyed anew in each process: two contents of one id are
    taken for the same at odds of 1 to 1.8e19."""
    time = content.time
    return hash(
        (
            *_plain(content),
            # Equal moments of two time zones are published differently.
            None if time is None else (time, time.utcoffset()),
            to_json(content.metadata) if content.metadata else b"",
        )
    )
