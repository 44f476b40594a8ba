"""Validity periods: from `valid_from`, inclusive, until `valid_until`, exclusive; null is unbounded.

Times are microseconds since 1970 (UTC), the precision of an event's times. A point that is always valid has no period:
only segments of knowledge have one.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from tagbus.stream.memory.hits import Flags
from tagbus.stream.memory.store import Payload

FROM: Final = "valid_from"
UNTIL: Final = "valid_until"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# In 1684 and in 2255. Between them Qdrant, which compares numbers in float64, tells each microsecond from the next.
FIRST: Final = -(2**53)
LAST: Final = 2**53
ALWAYS: Final = (FIRST, LAST)


def microseconds(time: datetime) -> int:
    """A time as a number, clamped to the first and the last."""
    return min(LAST, max(FIRST, (time - _EPOCH) // timedelta(microseconds=1)))


def period(payload: Payload) -> tuple[int, int]:
    """The validity period of a point with that payload: from, inclusive, to, exclusive."""
    return _time(payload.get(FROM), FIRST), _time(payload.get(UNTIL), LAST)


def is_valid(payload: Payload, at: datetime) -> bool:
    """Whether a point with that payload is valid at that time."""
    first, end = period(payload)
    return first <= microseconds(at) < end


def _time(value: object, missing: int) -> int:
    return microseconds(datetime.fromisoformat(value)) if isinstance(value, str) else missing


class Periods:
    """The periods of a store's rows, which take no memory while all rows are always valid."""

    def __init__(self) -> None:
        # int64 [2, capacity]: from, until; None before the first row that is not always valid.
        self._times = np.zeros((2, 0), np.int64)

    def put(self, row: int, period: tuple[int, int]) -> None:
        """Replace the period of a row."""
        if row >= self._times.shape[1]:
            if period == ALWAYS:
                return
            more = np.repeat(np.array([ALWAYS]).T, max(1024, row + 1), axis=1)
            self._times = np.concatenate((self._times, more), axis=1)
        self._times[:, row] = period

    def move(self, source: int, row: int) -> None:
        """Move the period of the last row, which is removed, to that row."""
        if source < self._times.shape[1]:
            self._times[:, row] = self._times[:, source]
            self._times[:, source] = ALWAYS
        else:
            self.put(row, ALWAYS)

    def valid(self, rows: int, at: datetime) -> Flags | None:
        """Which of the first `rows` are valid at that time, bool [rows]; None: all."""
        time, known = microseconds(at), min(rows, self._times.shape[1])
        first, end = self._times[:, :known]
        valid = (first <= time) & (time < end)
        if valid.all():
            return None
        return np.concatenate((valid, np.ones(rows - known, np.bool_)))
