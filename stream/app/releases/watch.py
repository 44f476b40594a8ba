"""A release in its first contents after it was put in force, and the way back to the one before.

What the workers publish is counted: results by the release's name, and dead letters, which name none. What cannot be
decoded, or is older than what is published, becomes a dead letter with any release and is not counted.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import Message

from tagbus.stream.app import console
from tagbus.stream.app.releases import recorded, switching
from tagbus.stream.app.releases.behaviour import FEWEST, Limits, ReleaseBehaviour
from tagbus.stream.bus.process.stamps import STAGE as ORDER
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import DEAD_LETTER_HEADERS, decode_tagged
from tagbus.stream.contract.events import TaggedContent
from tagbus.stream.contract.field_errors import STAGE as DECODE
from tagbus.stream.errors import Poison, TagbusError
from tagbus.stream.kafka.message import record_of
from tagbus.stream.kafka.reader import TopicReader

CHUNK: Final = 500
WAIT_SECONDS: Final = 1.0
# The stages of dead letters that say nothing about the release.
ANY_RELEASE: Final = frozenset({DECODE, ORDER})


@dataclass(frozen=True, slots=True)
class Watch:
    """For how many contents, and for how long, a release is watched; what was seen of it in shadow; its limits."""

    contents: int
    minutes: float
    expected: ReleaseBehaviour
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Watched:
    """What was seen of the release, and why the one before was put in force again; empty if it was not."""

    seen: ReleaseBehaviour
    problem: str


def activate(settings: Settings, name: str, watch: Watch, clock: Callable[[], float] = time.monotonic) -> Watched:
    """Put a release in force and watch what it does; put the one before in force again where it passes a limit.

    Raises as `switching.activate` does, and as the reading of `tagged` and of the dead letters does; the release
    before is put in force again then too.
    """
    with TopicReader(settings.kafka) as reader:
        reader.discover((settings.topics.tagged, settings.topics.dead_letters), "end")
        before = switching.activate(settings, name)
        if before == name:
            return Watched(ReleaseBehaviour(), "")
        console.say(f"release {name} is active instead of {before}; watching {watch.contents:,} contents")
        try:
            seen, problem = _watch(reader, settings, name, watch, clock)
        except BaseException:
            _roll_back(settings, name, before)
            raise
    if problem:
        _roll_back(settings, name, before)
    return Watched(seen, problem)


def _roll_back(settings: Settings, name: str, before: str) -> None:
    """Put the release before in force again, unless somebody has put another one in force meanwhile."""
    try:
        active = recorded.in_force(settings, recorded.read_releases(settings))
        if active != name:
            console.say(f"somebody put release {active} in force meanwhile, so {before} is not")
            return
        switching.activate(settings, before)
    except TagbusError:
        console.say(
            f"release {name} may still be in force: `tagbus release activate {before}` puts the one before back"
        )
        raise
    console.say(f"release {before} is active again")


def _watch(
    reader: TopicReader, settings: Settings, name: str, watch: Watch, clock: Callable[[], float]
) -> tuple[ReleaseBehaviour, str]:
    """What was seen, and the first limit that was passed."""
    seen, others, end = ReleaseBehaviour(), 0, clock() + 60 * watch.minutes
    while seen.contents < watch.contents and clock() < end:
        for message in reader.read(CHUNK, WAIT_SECONDS).messages:
            if message.topic() == settings.topics.dead_letters:
                seen.failed += _stage(message) not in ANY_RELEASE
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


def _stage(message: Message) -> str:
    value = dict(message.headers() or ()).get(DEAD_LETTER_HEADERS["stage"])
    return value.decode() if isinstance(value, bytes) else ""
