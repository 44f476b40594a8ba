"""Drop records of a key that are older than one in another partition: after its topic got partitions, a key has both.

Partitions are read in no order, so the older record may come last. This drops it while a topic is read once; `latest`
finds the last records exactly, for those who can read the topic twice. Keys are distinguished by 64 bits of a hash.
"""

from collections.abc import Iterable
from typing import Final

from tagbus.stream.index.apply import MemoryRecord
from tagbus.stream.memory.store import Source

# More than a topic has.
_PARTITIONS: Final = 1 << 20


class Newest:
    """The newest record of each key so far, in some 130 bytes a key."""

    def __init__(self) -> None:
        # By kind and hash of the key: time and partition in one number.
        self._known: dict[str, dict[int, int]] = {}

    def among(self, records: Iterable[MemoryRecord]) -> list[MemoryRecord]:
        """The records without those that are older than one of these, or of an earlier call. Within a partition the
        later record is newer."""
        return [item for item in records if self._is_newest(item.kind, item.record.key, item.source)]

    def forget(self) -> None:
        """Forget all records."""
        self._known = {}

    def _is_newest(self, kind: str, key: bytes | None, source: Source | None) -> bool:
        if key is None or source is None:
            return True
        known, number = self._known.setdefault(kind, {}), hash(key)
        time, partition = divmod(known.get(number, 0), _PARTITIONS)
        if partition != source.partition and time > source.time:
            return False
        known[number] = source.time * _PARTITIONS + source.partition
        return True
