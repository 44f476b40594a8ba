"""A release in its first contents after it was put in force, and the way back to the one before.

What the workers publish is counted: results by the release's name, and dead letters, which name none.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tagbus.stream.app import console
from tagbus.stream.app.releases import switching
from tagbus.stream.app.releases.observed import FEWEST, Limits, Observed
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import decode_tagged
from tagbus.stream.contract.events import TaggedContent
from tagbus.stream.errors import Poison
from tagbus.stream.kafka.message import record_of
from tagbus.stream.kafka.reader import TopicReader

CHUNK: Final = 500
WAIT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Watch:
    """For how many contents, and for how long, a release is watched; what was seen of it in shadow; its limits."""

    contents: int
    minutes: float
    expected: Observed
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was seen of the release, and why the one before was put in force again; empty where it was not."""

    seen: Observed
    problem: str


def activate(settings: Settings, name: str, watch: Watch, clock: Callable[[], float] = time.monotonic) -> Outcome:
    """Put a release in force and watch what it does; put the one before in force again where it passes a limit.

    Raises as `switching.activate` does, and as the reading of `tagged` and of the dead letters does; the release
    before is put in force again then too.
    """
    with TopicReader(settings.kafka) as reader:
        reader.discover((settings.topics.tagged, settings.topics.dead_letters), "end")
        before = switching.activate(settings, name)
        if before == name:
            return Outcome(Observed(), "")
        console.say(f"release {name} is active instead of {before}; watching {watch.contents:,} contents")
        try:
            seen, problem = _watch(reader, settings, name, watch, clock)
        except BaseException:
            _back(settings, before)
            raise
    if problem:
        _back(settings, before)
    return Outcome(seen, problem)


def _back(settings: Settings, before: str) -> None:
    switching.activate(settings, before)
    console.say(f"release {before} is active again")


def _watch(
    reader: TopicReader, settings: Settings, name: str, watch: Watch, clock: Callable[[], float]
) -> tuple[Observed, str]:
    """What was seen, and the first limit that was passed."""
    seen, others, end = Observed(), 0, clock() + 60 * watch.minutes
    while seen.contents < watch.contents and clock() < end:
        for message in reader.read(CHUNK, WAIT_SECONDS).messages:
            if message.topic() == settings.topics.dead_letters:
                seen.failed += 1
                continue
            try:
                event = decode_tagged(record_of(message))
            except Poison:
                continue
            if not isinstance(event, TaggedContent):
                continue
            if event.versions.release == name:
                seen.add(event)
            else:
                others += 1
        if seen.contents >= FEWEST and (problem := next(seen.problems(watch.expected, watch.limits), "")):
            return seen, problem
    if others and not seen.tagged:
        return seen, f"no worker tagged with it in {watch.minutes:g} minutes, while {others:,} results came of others"
    if seen.contents < min(FEWEST, watch.contents):
        console.say(f"only {seen.contents:,} contents came in {watch.minutes:g} minutes: too few to say anything")
        return seen, ""
    return seen, next(seen.problems(watch.expected, watch.limits), "")
