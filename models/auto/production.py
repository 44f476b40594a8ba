"""`tagbus train auto topics --since WHEN`: a release out of what people decided, and its way into force.

It is trained on all decisions but the newest, and compared on these with the release in force. Where it is better it is
built and put on the topic; then it runs in shadow on the newest contents; with `--activate` it is put in force,
watched, and taken back where it misbehaves. The first of these that fails is the last.
"""

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final

from pydantic import BaseModel, ConfigDict

from tagbus.models.auto import comparison, recent
from tagbus.models.auto.comparison import ComparedRelease, Comparison
from tagbus.models.auto.run import PENDING, REPORT, Run, write
from tagbus.stream.app import console
from tagbus.stream.app.places import folders
from tagbus.stream.app.releases import building, recorded, shadow_run, watch
from tagbus.stream.app.releases.behaviour import Limits
from tagbus.stream.app.releases.watch import Watch
from tagbus.stream.calibrate import Calibration
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.release import encode_release
from tagbus.stream.errors import CheckFailed, UserError
from tagbus.stream.recall.lexical import literal

COMPARISON: Final = "comparison"


@dataclass(frozen=True, slots=True)
class Rollout:
    """How far a release goes: contents in shadow, and, with `watched`, contents and minutes that it is watched in
    force."""

    shadow: int
    watched: int | None
    minutes: float
    limits: Limits


def require(settings: Settings, to: Path) -> None:
    """Raises UserError where a worker could not take what is trained here."""
    folder = settings.releases.folder
    if folder is None or to.parent.resolve() != folder.resolve():
        raise UserError(
            f"--out: {to} is not in TAGBUS_RELEASES__FOLDER={folder or ''}, where workers look for releases"
        )
    if not literal.LiteralSettings.model_validate(settings.components.get(literal.NAME, {})).enabled:
        raise UserError(
            "TAGBUS_COMPONENTS__LITERAL__ENABLED is not true here; what is trained reads literal names: set it here "
            "and on every worker"
        )


class Pending(BaseModel):
    """What a release that is better still needs on its way into force: the curve that it was compared with."""

    model_config = ConfigDict(frozen=True)

    curve: Calibration | None


def train(run: Run, since: datetime, rollout: Rollout) -> None:
    """Train, compare, build, run in shadow, and put in force. Raises CheckFailed where the release goes no further.

    A command that was interrupted on the way is resumed; what it has decided it does not decide again.
    """
    settings = load()
    require(settings, run.to)
    if not run.to.exists():
        _trained(run, settings, since)
    pending = run.work / PENDING
    curve = Pending.model_validate_json(pending.read_bytes()).curve
    _build(settings, run.to.name, curve)
    with _decided(pending):
        expected = asyncio.run(_in_shadow(settings, run.to.name, rollout))
    if rollout.watched is None:
        pending.unlink()
        console.say(f"proposed: `tagbus release activate {run.to.name}` puts it in force")
        return
    with _ended_by_signals():
        outcome = watch.activate(
            settings, run.to.name, Watch(rollout.watched, rollout.minutes, expected.fresh, rollout.limits)
        )
    pending.unlink()
    if outcome.problem:
        raise CheckFailed(f"release {run.to.name} was taken back: {outcome.problem}")
    console.print_line(f"release {run.to.name} is active, {outcome.seen.contents:,} contents within its limits")


@contextmanager
def _decided(pending: Path) -> Iterator[None]:
    """A release that fails in the block goes no further, also when the same command is given again."""
    try:
        yield
    except CheckFailed:
        pending.unlink()
        raise


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, and neither cuts off what it does at its end: the release before is put
    in force again then."""

    def end(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _trained(run: Run, settings: Settings, since: datetime) -> None:
    """Train and compare, and let the release out where it is better."""
    report = run.train(partial(recent.read, settings, since))
    # A resumed run keeps the time at which it began.
    found, curve = asyncio.run(_compared(run, settings, report.plan.since or since))
    kept = {**report.model_dump(mode="json"), COMPARISON: found.model_dump(mode="json")}
    (run.made / REPORT).write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    for line in found.lines():
        console.say(line)
    if problems := list(found.problems()):
        raise CheckFailed(f"release {run.to.name} is not proposed: {'; '.join(problems)}; it stays in {run.made}")
    write(run.work / PENDING, Pending(curve=curve))
    run.release()


async def _compared(run: Run, settings: Settings, since: datetime) -> tuple[Comparison, Calibration | None]:
    releases = recorded.read_releases(settings)
    active = recorded.in_force(settings, releases)
    in_force = recorded.own(settings, active, releases.records.get(active))
    new = ComparedRelease(run.to.name, folders.settings_of(settings, run.made, None), {})
    old = ComparedRelease(active, in_force, releases.calibrations_of(active))
    return await comparison.compare(run.taken, new, old, since, run.work / "cache")


def _build(settings: Settings, name: str, curve: Calibration | None) -> None:
    """Fill its memory and put it on the topic, with the curve that it was compared with."""
    asyncio.run(building.build(settings, recorded.record_for(settings, name, None), None))
    if curve is not None:
        recorded.publish(settings, encode_release(curve))


async def _in_shadow(settings: Settings, name: str, rollout: Rollout) -> shadow_run.ShadowRun:
    found = await shadow_run.run(settings, name, rollout.shadow)
    console.say(str(found))
    if problems := list(found.problems(rollout.limits)):
        raise CheckFailed(f"release {name} failed in shadow, and is not activated: {'; '.join(problems)}")
    return found
