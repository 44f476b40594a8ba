"""Find the last record of each key of a topic, in 28 bytes a record.

A topic is not always compacted, so a key may have many records. Keys are distinguished by 64 bits of a hash: among ten
million keys, two collide in one of 400,000 topics.
"""

import hashlib
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.memory.store import Source

Flags = NDArray[np.bool_]


class Latest:
    """Collects the records of a topic, in any order of partitions; `settled` gives the last ones."""

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._partitions = array("i")
        self._offsets = array("q")
        self._times = array("q")

    def add(self, key: str, source: Source) -> None:
        """Add a record of that key."""
        self._hashes.append(_hash(key))
        self._partitions.append(source.partition)
        self._offsets.append(source.offset)
        self._times.append(source.time)

    def settled(self) -> "LastRecords":
        """The last record of each key."""
        hashes, partitions = np.array(self._hashes, np.uint64), np.array(self._partitions, np.int32)
        offsets, times = np.array(self._offsets, np.int64), np.array(self._times, np.int64)
        # Of a key's records in each partition the one with the highest offset, and of those the youngest.
        order = np.lexsort((offsets, partitions, hashes))
        order = order[_ends(hashes[order], partitions[order])]
        order = order[np.lexsort((times[order], hashes[order]))]
        order = order[_ends(hashes[order])]
        return LastRecords(hashes[order], partitions[order], offsets[order])


class LastRecords:
    """The last record of each key; parallel arrays, sorted by hash."""

    def __init__(self, hashes: NDArray[np.uint64], partitions: NDArray[np.int32], offsets: NDArray[np.int64]) -> None:
        self._hashes = hashes
        self._partitions = partitions
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._hashes)

    def is_last(self, key: str, source: Source) -> bool:
        """Whether that record is the last one of its key."""
        row = int(np.searchsorted(self._hashes, np.uint64(_hash(key))))
        return row < len(self) and (int(self._partitions[row]), int(self._offsets[row])) == source[:2]

    def known(self, keys: Sequence[str]) -> Flags:
        """Which of these keys have a record, bool [n]."""
        return np.isin(np.array([_hash(key) for key in keys], np.uint64), self._hashes)


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())


def _ends(*columns: NDArray[np.generic]) -> Flags:
    """A mask of the rows that end a run of equal values."""
    ends = np.ones(len(columns[0]), np.bool_)
    if len(ends):
        ends[:-1] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return ends
