"""Parse times and topic positions from the command line."""

import re
from datetime import UTC, datetime, timedelta

from tagbus.stream.contract.codec import Origin
from tagbus.stream.contract.fields import RFC3339
from tagbus.stream.errors import UserError, shorten

MOMENT = "an RFC 3339 time with its offset, or how long ago: 90s, 15m, 2h, 7d"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_AGO = re.compile(r"([0-9]{1,9})([smhd])")
# Offsets are int64, partitions int32.
_POSITION = re.compile(r"(?P<topic>[a-zA-Z0-9._-]{1,249}):(?P<partition>[0-9]{1,9}):(?P<offset>[0-9]{1,18})")


def moment(option: str, text: str | None) -> datetime | None:
    """Parse an RFC 3339 time (`2026-01-31T09:30:00Z`) or an age (`2h`); None for None.

    Raises UserError that names the option.
    """
    if text is None:
        return None
    try:
        if ago := _AGO.fullmatch(text):
            return datetime.now(UTC) - timedelta(seconds=int(ago[1]) * UNITS[ago[2]])
        if re.match(RFC3339, text):
            return datetime.fromisoformat(text.upper())
    except (ValueError, OverflowError):
        pass
    raise UserError(f"{option} {shorten(text)} is wrong, expected {MOMENT}")


def position(text: str) -> Origin:
    """Parse `content:3:1041` into topic, partition and offset. Raises UserError."""
    found = _POSITION.fullmatch(text)
    if found is None:
        raise UserError(f"{shorten(text)} is not a topic position, expected TOPIC:PARTITION:OFFSET")
    return Origin(found["topic"], int(found["partition"]), int(found["offset"]))
