"""JSON log lines: one object per line, with the content, trace and offset that it is about, if any, and never a
content's text.

An exception's message is left out, since it may quote a content; its class and location are included.
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

# Fields that a line may have through `extra`.
FIELDS: Final = ("content", "trace_id", "topic", "partition", "offset")
# Longer messages are cut: none of ours is as long.
MESSAGE_CHARS: Final = 4_096


@dataclass(frozen=True, slots=True)
class BatchPosition:
    """The position of the current batch: its first offset, and its trace, empty if there is none."""

    topic: str
    partition: int
    offset: int
    trace_id: str = ""


_position: ContextVar[BatchPosition | None] = ContextVar("position", default=None)


@contextmanager
def at(position: BatchPosition) -> Iterator[None]:
    """Attribute lines logged inside to this batch."""
    token = _position.set(position)
    try:
        yield
    finally:
        _position.reset(token)


class JsonFormatter(logging.Formatter):
    """Formats a log line as JSON, in ASCII: terminal control characters are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage()[:MESSAGE_CHARS],
        }
        if (position := _position.get()) is not None:
            line |= {"topic": position.topic, "partition": position.partition, "offset": position.offset}
            line |= {"trace_id": position.trace_id} if position.trace_id else {}
        line |= {name: value for name in FIELDS if (value := getattr(record, name, None)) not in {None, ""}}
        if record.exc_info and (error := record.exc_info[1]) is not None:
            frames = traceback.extract_tb(error.__traceback__)
            line["exception"] = type(error).__name__
            line["stack"] = [f"{one.filename}:{one.lineno} {one.name}" for one in frames]
        return json.dumps(line)
