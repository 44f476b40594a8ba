"""The columns of an in-process store, all but its vectors, so that a search gathers arrays.

Rows 0 to n - 1 are in use, without a gap. Payloads are kept as JSON: bytes take a third of the memory of dictionaries,
and garbage collection does not traverse them.
"""

from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path
from sys import intern
from typing import Final

import numpy as np

from tagbus.stream.memory.checks import decode
from tagbus.stream.memory.hits import Carried, Flags, Floats, Hits, Ints, bounds, taken
from tagbus.stream.memory.rows.bodies import BodyFile
from tagbus.stream.memory.scopes import ScopeSets, audience, carried_ids
from tagbus.stream.memory.store import Payload
from tagbus.stream.memory.validity import Periods, period

FIRST: Final = 1024
# Payloads that stay decoded: batches request the same few thousand tags repeatedly.
DECODED: Final = 16_384


class Columns:
    """Keys, payloads, carried tags, scopes and periods by row."""

    def __init__(self, carried: Carried, files: Path | None = None) -> None:
        """`files`: a folder for the file that payloads are read from; None: they stay in memory."""
        self._carried = carried
        self._keys = np.empty(FIRST, np.object_)
        self._sets = np.zeros(FIRST, np.int32)
        self._bodies: list[bytes] | BodyFile = [] if files is None else BodyFile(files)
        self._decoded: dict[str, Payload] = {}
        self._tags = Ragged()
        self._scopes = ScopeSets()
        self._periods = Periods()
        self._rows: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._bodies)

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def row(self, key: str) -> int:
        """The row of a key. Raises KeyError."""
        return self._rows[key]

    def keys(self) -> Iterator[str]:
        """Every key, by row."""
        return iter(self._keys[: len(self)])

    def body(self, row: int) -> bytes:
        """The payload of a row as JSON."""
        return self._bodies[row]

    def payload(self, key: str) -> Payload:
        """The payload of a key; not to be changed. Raises KeyError."""
        found = self._decoded.get(key)
        if found is None:
            if len(self._decoded) >= DECODED:
                self._decoded.clear()
            found = self._decoded[key] = _shared(decode(self._bodies[self._rows[key]]))
        return found

    def add(self, key: str) -> int:
        """Add an empty row."""
        row = len(self._bodies)
        if row == len(self._keys):
            self._keys = np.concatenate((self._keys, np.empty(row, np.object_)))
            self._sets = np.concatenate((self._sets, np.zeros(row, np.int32)))
        self._bodies.append(b"{}")
        self._keys[row], self._rows[key] = key, row
        self._sets[row] = self._scopes.enter(frozenset())
        self._tags.add()
        return row

    def put(self, row: int, body: bytes) -> None:
        """Replace the payload of a row, and the tags, scopes and validity that it names."""
        key, payload = self._keys[row], decode(body)
        self._decoded.pop(key, None)
        self._bodies[row] = body
        self._tags.put(row, self._carried.numbers.of(carried_ids(self._carried, key, payload)))
        self._scopes.leave(self._sets[row])
        self._sets[row] = self._scopes.enter(audience(payload))
        self._periods.put(row, period(payload))

    def remove(self, key: str) -> int | None:
        """Remove a key's row; the last row moves into the gap. Returns the row, None if the key is missing."""
        row = self._rows.pop(key, None)
        if row is None:
            return None
        self._decoded.pop(key, None)
        self._scopes.leave(self._sets[row])
        last = len(self._bodies) - 1
        moved, body = self._keys[last], self._bodies.pop()
        self._keys[last] = None
        if row != last:
            self._keys[row], self._bodies[row], self._sets[row] = moved, body, self._sets[last]
            self._rows[moved] = row
        self._tags.remove(row)
        self._periods.move(last, row)
        return row

    def visible(self, scopes: frozenset[str] | None, at: datetime | None = None) -> Flags | None:
        """Which rows a content of these scopes sees, bool [n], among those valid at that time; None: all of them.

        Without scopes: all rows that some content sees.
        """
        valid = None if at is None else self._periods.valid(len(self), at)
        if self._scopes.count(scopes) == len(self):
            return valid
        seen = self._scopes.visible(scopes)[self._sets[: len(self)]]
        return seen if valid is None else seen & valid

    def chosen(self, keys: Collection[str]) -> Flags:
        """Which rows have one of these keys, bool [n]."""
        found = np.zeros(len(self), np.bool_)
        found[[row for key in keys if (row := self._rows.get(key)) is not None]] = True
        return found

    def keys_of(self, rows: Ints) -> list[str]:
        """The key of each row."""
        found: list[str] = self._keys[rows].tolist()
        return found

    def hits(self, found: list[tuple[Ints, Floats]]) -> Hits:
        """Rows and their similarities, by query, as hits."""
        rows = np.concatenate([rows for rows, _ in found]) if found else np.zeros(0, np.int64)
        scores = np.concatenate([scores for _, scores in found]) if found else np.zeros(0, np.float32)
        starts = bounds([len(rows) for rows, _ in found])
        return Hits(starts, self._keys[rows], scores, *self._tags.taken(rows))


class Ragged:
    """Lists of numbers by row, in one array; it is compacted when half of it is space that grown lists left."""

    def __init__(self) -> None:
        self._first = np.zeros(FIRST, np.int64)
        self._lengths = np.zeros(FIRST, np.int32)
        self._values = np.zeros(FIRST, np.int32)
        self._rows = 0
        self._end = 0

    def add(self) -> None:
        """Add an empty row."""
        if self._rows == len(self._first):
            self._first = np.concatenate((self._first, np.zeros(self._rows, np.int64)))
            self._lengths = np.concatenate((self._lengths, np.zeros(self._rows, np.int32)))
        self._first[self._rows] = self._lengths[self._rows] = 0
        self._rows += 1

    def put(self, row: int, values: Ints) -> None:
        """Replace the numbers of a row."""
        if len(values) > self._lengths[row]:
            self._make_room(len(values))
            self._first[row] = self._end
            self._end += len(values)
        self._lengths[row] = len(values)
        self._values[self._first[row] : self._first[row] + len(values)] = values

    def remove(self, row: int) -> None:
        """Remove a row; the last one moves into the gap."""
        self._rows -= 1
        self._first[row], self._lengths[row] = self._first[self._rows], self._lengths[self._rows]

    def taken(self, rows: Ints) -> tuple[Ints, Ints]:
        """The concatenated numbers of these rows: where each row's begin, int64 [n + 1], and the numbers."""
        starts, values = taken(self._first[rows], self._lengths[rows].astype(np.int64), self._values)
        return starts, values.astype(np.int64)

    def _make_room(self, more: int) -> None:
        if self._end + more <= len(self._values):
            return
        starts, values = self.taken(np.arange(self._rows))
        self._values = np.zeros(2 * (len(values) + more) + FIRST, np.int32)
        self._values[: len(values)] = values
        self._first[: self._rows], self._end = starts[:-1], len(values)


def _shared(payload: Payload) -> Payload:
    """The payload with each id in its lists interned, shared by all payloads that name it: a tag's id of 20 letters
    takes 70 bytes."""
    return {
        name: [intern(one) if type(one) is str else one for one in value] if isinstance(value, list) else value
        for name, value in payload.items()
    }
