"""Backfill, `tagbus run --from`: tag a range of `content` again, into separate topics, up to an end.

A backfill writes nothing that the live workers read or write. Its results go to the output topic; everything that goes
with them (dead letters, published versions, the exemplars and decisions that withdrawals remove) goes to topics named
after it. So an old event cannot replace a newer result, an old withdrawal cannot erase later decisions of people, and
no live event is taken for stale.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tagbus.stream.app.time_arguments import MOMENT, moment
from tagbus.stream.bus.consume.bounds import ReadRange
from tagbus.stream.config import Settings, TopicSettings
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.kafka.ranges import OffsetRange, current_range

_OFFSETS = re.compile(r"[0-9]{1,9}:[0-9]{1,18}(,[0-9]{1,9}:[0-9]{1,18})*")


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of the command line, verbatim."""

    start: str | None = None
    until: str | None = None
    group: str | None = None
    output: str | None = None
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Backfill:
    """The settings of the backfill's worker, whose memory is built from the live settings, and the range it reads."""

    settings: Settings
    read_range: ReadRange

    def offsets(self, settings: Settings) -> OffsetRange:
        """The part of the range that `content` holds now. Raises as `current_range` does."""
        start, until = self.read_range.starts, self.read_range.until
        times = [one if isinstance(one, datetime) else None for one in (start, until)]
        found = current_range(settings.kafka, settings.topics.content, *times)
        return found.after(start) if isinstance(start, Mapping) else found


def plan(settings: Settings, asked: Asked) -> Backfill | None:
    """The requested backfill; None if no option is given. Raises UserError that names what is missing."""
    if asked == Asked():
        return None
    if asked.start is None or asked.group is None or asked.output is None:
        raise UserError("a backfill needs --from, --group and --output, so that it does not touch the live workers")
    if asked.group == settings.kafka.group:
        raise UserError(f"--group {asked.group} is the live group: a backfill would move its offsets; expected another")
    read_range = ReadRange(_start(asked.start), _until(asked.until or "end"), asked.rate)
    kafka = {
        "group": asked.group,
        # The prefix stays, so that one ACL covers both, and the live worker of this instance is not fenced.
        "transactional_id": f"{settings.kafka.transactional_id}-{asked.group}",
    }
    work = settings.model_copy(
        update={
            "kafka": settings.kafka.model_copy(update=kafka),
            "topics": outputs(settings.topics, asked.output),
            "tagger": settings.tagger.model_copy(update={"write_back": None}),
        }
    )
    return Backfill(work, read_range)


def outputs(topics: TopicSettings, output: str) -> TopicSettings:
    """The topics of a backfill with this output. The topics that it reads are unchanged, except `exemplars`, which it
    writes.

    Raises UserError if one of its own is a live topic.
    """
    own = {"tagged": output} | {
        field: f"{output}.{word}"
        for field, word in (
            ("dead_letters", "dlq"),
            ("versions", "versions"),
            ("exemplars", "exemplars"),
            ("feedback", "feedback"),
        )
    }
    if live := [name for name in own.values() if name in _names(topics)]:
        said = output if live[0] == output else f"{output}: {live[0]}"
        raise UserError(f"--output {said} is a live topic: old results would replace newer ones; expected another")
    return topics.model_copy(update=own)


def _names(topics: TopicSettings) -> set[str]:
    return {str(name) for name in topics.model_dump(exclude={"partitions", "replication"}).values()}


def _start(text: str) -> Literal["earliest"] | datetime | Mapping[int, int]:
    if text == "earliest":
        return "earliest"
    if _OFFSETS.fullmatch(text):
        pairs = (pair.split(":") for pair in text.split(","))
        return {int(partition): int(offset) for partition, offset in pairs}
    return _moment("--from", text, "earliest, offsets (0:1041,1:977)")


def _until(text: str) -> Literal["end"] | datetime:
    return "end" if text == "end" else _moment("--until", text, "end")


def _moment(option: str, text: str, others: str) -> datetime:
    try:
        if found := moment(option, text):
            return found
    except UserError:
        pass
    raise UserError(f"{option} {shorten(text)} is wrong, expected {others}, {MOMENT}")
