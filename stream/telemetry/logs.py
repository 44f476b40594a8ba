"""Lines of the log as JSON: an object a line, with the content, the trace and the offset that it is about where it is
about one, and never a content's text.

What an exception says is left out, since it may quote a content: its class and where it was raised are there.
"""

import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

# Fields that a line may carry by `extra`.
FIELDS: Final = ("content", "trace_id", "topic", "partition", "offset")
# A message is cut: none of ours is as long.
MESSAGE_CHARS: Final = 4_096


@dataclass(frozen=True, slots=True)
class Place:
    """The batch in hand: its first offset, and its trace, empty where there is none."""

    topic: str
    partition: int
    offset: int
    trace_id: str = ""


_place: ContextVar[Place | None] = ContextVar("place", default=None)


@contextmanager
def at(place: Place) -> Iterator[None]:
    """Lines that are logged inside are about this batch."""
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)


class JsonFormatter(logging.Formatter):
    """A line of the log as JSON, in ASCII: what moves a terminal's cursor is escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage()[:MESSAGE_CHARS],
        }
        if (place := _place.get()) is not None:
            line |= {"topic": place.topic, "partition": place.partition, "offset": place.offset}
            line |= {"trace_id": place.trace_id} if place.trace_id else {}
        line |= {name: value for name in FIELDS if (value := getattr(record, name, None)) not in {None, ""}}
        if record.exc_info and (error := record.exc_info[1]) is not None:
            frames = traceback.extract_tb(error.__traceback__)
            line["exception"] = type(error).__name__
            line["stack"] = [f"{one.filename}:{one.lineno} {one.name}" for one in frames]
        return json.dumps(line)
