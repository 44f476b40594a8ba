"""`tagbus release`: roll out a new encoder, or roll back, without a restart."""

import asyncio
import logging
import re
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tagbus.stream.app import console
from tagbus.stream.app.places import folders
from tagbus.stream.app.releases import building, recorded, shadow, switching
from tagbus.stream.cli.run import Level
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.codec import Record, decode_tagged
from tagbus.stream.contract.events import TaggedContent
from tagbus.stream.contract.release import ACTIVE, NAME, ReleaseRecord, Served, calibration_key, encode_release
from tagbus.stream.encoder.release import Release, load_recorded, load_release
from tagbus.stream.errors import CheckFailed, Poison, TagbusError, UserError, shorten
from tagbus.stream.index import snapshot
from tagbus.stream.kafka.message import record_of
from tagbus.stream.kafka.ranges import OffsetRange, current_range, read_range
from tagbus.stream.memory.shared import shared_stores

log = logging.getLogger(__name__)

# The number of newest records that `drop` reads from each partition of `tagged`.
TAIL = 1_000

release = typer.Typer(help="Releases: a new encoder without a restart.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="name of the release and of its folder in TAGBUS_RELEASES__FOLDER")]


@release.callback()
def _group() -> None:
    """Releases: a new encoder without a restart."""


@release.command("list")
def list_() -> None:
    """Show the releases on the topic: which one is in force, and whether its files are on this machine."""
    settings = load()
    releases = recorded.read_releases(settings)
    base = folders.base_release(settings)
    active = recorded.in_force(settings, releases)
    table = Table("release", "", "encoder", "precision", "dimension", "calibration", "files")
    for name in sorted({*releases.records, base.name, active}):
        record = releases.records.get(name)
        one = record.release if record else base if name == base.name else None
        about = ("?", "?", "?") if one is None else (one.encoder, one.precision, str(one.dimension))
        fitted = ", ".join(curve.name for curve in releases.calibrations_of(name).values()) or "by its folder"
        where = "" if record else "  (encoder.folder; not on the topic)"
        mark = "active" if name == active else ""
        table.add_row(name, mark, *map(console.printable, (*about, fitted, f"{_files(settings, name, record)}{where}")))
    console.stdout.print(table)


@release.command("build")
def build_(
    name: Name,
    follow: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--follow", help="keep following the topics until SIGTERM")
    ] = False,
    every: Annotated[float, typer.Option("--every", min=1, help="seconds between snapshots with --follow")] = 60.0,
    triton: Annotated[str | None, typer.Option("--triton", help="its model on Triton, MODEL:VERSION")] = None,
    level: Level = "info",
) -> None:
    """Fill the memory of release NAME beside the one in force, then put NAME on the topic: workers start to load it.

    With the exact and the embedded store it writes a snapshot with its offsets to NAME/memory, from which workers
    continue; with the server store it fills separate collections there. It resumes where it was stopped.
    """
    _check_name(name)
    settings = load()
    record = recorded.record_for(settings, name, _served(triton))
    console.set_up_logging(level)
    asyncio.run(_build(settings, record, every if follow else None))


@release.command()
def check(
    name: Name,
    file: Annotated[Path, typer.Argument(help="contents with their right tags: exemplars, one a line")],
    level: Level = "warning",
) -> None:
    """Compare release NAME with the one in force, and fit its calibration. Code 3 if anything is not ok.

    FILE may not hold contents that are among the exemplars. Unless NAME is in force, the calibration is published to
    the topic, and each worker that holds NAME applies it.
    """
    _check_name(name)
    settings = load()
    releases = recorded.read_releases(settings)
    record = recorded.on_topic(releases, name)
    active = recorded.in_force(settings, releases)
    console.set_up_logging(level)
    pair = shadow.Pair(
        name,
        active,
        recorded.own(settings, name, record),
        recorded.own(settings, active, releases.records.get(active)),
        folders.snapshot_folder(settings, name),
        folders.snapshot_folder(settings, active),
    )
    report = asyncio.run(shadow.compare(pair, file))
    for finding in report.findings:
        typer.echo(f"{'ok' if finding.ok else 'not ok':<7} {finding.subject:<12} {finding.words}")
    if not all(finding.ok for finding in report.findings):
        raise CheckFailed(f"release {name} is not ready to be activated")
    if name != active and report.calibration is not None:
        recorded.publish(settings, encode_release(report.calibration))


@release.command()
def activate(name: Name) -> None:
    """Put release NAME in force: each worker switches to it, or back, as soon as it has caught up."""
    _check_name(name)
    settings = load()
    before = switching.activate(settings, name)
    if before == name:
        console.say(f"release {name} is already in force")
        return
    console.say(f"release {name} is active; {before} is kept until `tagbus release drop {before}`")


@release.command()
def drop(
    name: Name,
    minutes: Annotated[float, typer.Option("--minutes", min=0, help="how far back `tagged` is checked")] = 10.0,
) -> None:
    """Have every worker unload release NAME. Refused while it is in force or `tagged` still shows results of it."""
    _check_name(name)
    settings = load()
    releases = recorded.read_releases(settings)
    if name == recorded.in_force(settings, releases):
        raise UserError(f"release {name} is in force; activate another first")
    recorded.on_topic(releases, name)
    if place := _shown(settings, name, datetime.now(UTC) - timedelta(minutes=minutes)):
        raise UserError(
            f"release {name} produced {place} in the last {minutes:g} minutes: a worker still tags with it; "
            "check /readyz of the workers, or a shorter time with --minutes"
        )
    if settings.memory.kind == "server":
        asyncio.run(_drop_collections(settings, releases.records[name].release))
    keys = [name, *(calibration_key(name, path) for path in releases.calibrations_of(name))]
    recorded.publish(settings, *(Record(key.encode(), None) for key in keys))
    console.say(f"release {name} is dropped; its folder may be deleted")


async def _drop_collections(settings: Settings, one: Release) -> None:
    """Called before the release leaves the topic: if the server does not answer, the command can be repeated."""
    async with switching.shared_memory(settings, one) as memory:
        for store in shared_stores(memory).values():
            await store.drop()


async def _build(settings: Settings, record: ReleaseRecord, every: float | None) -> None:
    """`every`: seconds between snapshots while it follows; None: it does not follow."""
    working = asyncio.create_task(building.build(settings, record, every))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, working.cancel)
    try:
        await working
    except asyncio.CancelledError:
        log.info("release build: stopped")


def _check_name(name: str) -> None:
    """Raises UserError for a name that is not safe in a path."""
    if not re.fullmatch(NAME, name) or name == ACTIVE:
        raise UserError(
            f"{shorten(name)} is not a release name, expected at most 100 lowercase letters, digits, '.', '_' and '-'"
        )


def _served(text: str | None) -> Served | None:
    if text is None:
        return None
    model, _, version = text.rpartition(":")
    if not model or not version.isascii() or not version.isdigit() or int(version[:9]) == 0:
        raise UserError(f"--triton {shorten(text)} is wrong, expected MODEL:VERSION, for instance encoder:2")
    return Served(model=model, version=int(version[:9]))


def _files(settings: Settings, name: str, record: ReleaseRecord | None) -> str:
    try:
        folder = folders.release_folder(settings, name)
        one = load_release(folder) if record is None else load_recorded(folder, record.release)
    except TagbusError as error:
        return str(error)
    left = folders.snapshot_folder(settings, one.name)
    there = snapshot.current(left) if left is not None else None
    return f"ok, memory of {datetime.fromtimestamp(there.time, UTC):%Y-%m-%dT%H:%M:%SZ}" if there else "ok"


def _shown(settings: Settings, name: str, since: datetime) -> str | None:
    """A result of that release among the newest of each partition, none older than `since`."""
    found = current_range(settings.kafka, settings.topics.tagged, since)
    tail = {partition: max(start, found.ends[partition] - TAIL) for partition, start in found.starts.items()}
    for message in read_range(settings.kafka, OffsetRange(found.topic, tail, found.ends)):
        try:
            event = decode_tagged(record_of(message))
        except Poison:
            continue
        if isinstance(event, TaggedContent) and event.versions.release == name:
            return f"{message.topic()}:{message.partition()}:{message.offset()}"
    return None
