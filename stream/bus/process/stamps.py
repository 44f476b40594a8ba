"""Stamps: version and time of a content in one integer, how they compare, and how they are serialized.

The stamp in force for a content is that of its last published event. A withdrawal keeps it, marked as withdrawn: an
event with an equal stamp passes where the stamp was published, and is stale where it was withdrawn.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tagbus.stream.errors import FieldError, Stale, shorten

STAGE = "order"

# An integer takes 32 to 40 bytes, a tuple 120. From the lowest bit: whether the content is withdrawn (1 bit), the time
# (49 bits), the version plus one. A missing part is 0.
_TIME_BITS = 50
_TIME = (1 << _TIME_BITS) - 1
_WITHDRAWN = 1
# Added to Unix milliseconds, so that times before 1970 are positive.
_SHIFT = 1 << 47
# The years 1 to 9999, at any offset from UTC.
_FIRST, _LAST = -62_135_683_200_000, 253_402_387_199_999

Stamp = int


def stamp(version: int | None, milliseconds: int | None) -> Stamp:
    """Version and time (Unix milliseconds) as one integer; 0 if there is neither. A time that is not a date counts as
    none."""
    time = 0 if milliseconds is None or not _FIRST <= milliseconds <= _LAST else (milliseconds + _SHIFT) << 1
    return time if version is None else ((version + 1) << _TIME_BITS) | time


def stamp_of(version: int | None, time: datetime | None) -> Stamp:
    """The stamp of a content."""
    return stamp(version, None if time is None else round(time.timestamp() * 1000))


def withdrawal(recorded: float | None, now: float) -> Stamp:
    """The stamp of a withdrawal by the time of its record, in Unix seconds; 0 if it has none.

    `now` bounds it: a producer's clock that is ahead would make events in the meantime stale.
    """
    return 0 if recorded is None else stamp(None, round(min(recorded, now) * 1000))


def withdrawn(before: Stamp, given: Stamp) -> Stamp:
    """The stamp in force after a withdrawal: the version in force `before`, and the later of both times."""
    kept = (before & ~_TIME) | max(before & _TIME, given & _TIME)
    return kept | _WITHDRAWN if kept else 0


def version_of(given: Stamp) -> int | None:
    """The version in a stamp."""
    return (given >> _TIME_BITS) - 1 if given > _TIME else None


def milliseconds_of(given: Stamp) -> int | None:
    """The time in a stamp."""
    time = (given & _TIME) >> 1
    return time - _SHIFT if time else None


def older(given: Stamp, than: Stamp) -> bool:
    """Whether a content is older than the stamp in force: by version if both have one, else by time if both have one,
    else not. The same version or time counts as older than a withdrawn one, but not than a published one."""
    if given > _TIME and than > _TIME:
        return (given >> _TIME_BITS) < (than >> _TIME_BITS) + (than & _WITHDRAWN)
    # The lowest bit makes a withdrawn time later than the same time.
    time, other = given & _TIME, than & _TIME
    return bool(time and other) and time < other


class _Value(BaseModel):
    """A value on the topic of published versions."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    version: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    time: int | None = None
    withdrawn: bool = False


def write(given: Stamp) -> bytes:
    """A value for the topic of published versions: version, and time in Unix milliseconds; null if there is none. Only
    a withdrawn content has `withdrawn`."""
    version = b"null" if given <= _TIME else b"%d" % ((given >> _TIME_BITS) - 1)
    time = (given & _TIME) >> 1
    milliseconds = b"%d" % (time - _SHIFT) if time else b"null"
    mark = b',"withdrawn":true' if given & _WITHDRAWN else b""
    return b'{"version":%b,"time":%b%b}' % (version, milliseconds, mark)


def read(value: bytes) -> Stamp:
    """The stamp in a value from the topic; 0 if the value is not ours."""
    try:
        found = _Value.model_validate_json(value)
    except ValidationError:
        return 0
    given = stamp(found.version, found.time)
    return withdrawn(given, 0) if found.withdrawn else given


def stale(content_id: str, given: Stamp, newer: Stamp) -> Stale:
    """The error for a content that is older than the stamp in force."""
    by_version = given > _TIME and newer > _TIME
    show = version_of if by_version else _moment
    name = shorten(content_id)
    expected = f"{show(newer)} or newer, as published already for content {name}"
    if newer & _WITHDRAWN:
        expected = f"newer than {show(newer)}: content {name} was withdrawn"
    return Stale(STAGE, (FieldError("version" if by_version else "time", str(show(given)), expected),))


def _moment(given: Stamp) -> str:
    milliseconds = milliseconds_of(given) or 0
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return f"{milliseconds} ms"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
