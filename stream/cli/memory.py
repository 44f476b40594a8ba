"""`tagbus memory`: inspect a kept memory, verify it against its topics, rebuild it, snapshot and restore it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table

from tagbus.stream.app import assemble, console
from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.app.places import folders
from tagbus.stream.app.releases import recorded
from tagbus.stream.cli.run import Level
from tagbus.stream.config import Settings, load
from tagbus.stream.errors import CheckFailed, UserError
from tagbus.stream.index import snapshot, status
from tagbus.stream.index.audit import Audit, audit
from tagbus.stream.index.bootstrap import Report
from tagbus.stream.index.indexer import rebuilder
from tagbus.stream.index.shared import require_own
from tagbus.stream.index.topics import MemoryTopics
from tagbus.stream.kafka.message import Partition
from tagbus.stream.memory import Memory, open_memory
from tagbus.stream.memory.kinds import KINDS
from tagbus.stream.memory.shared import shared_stores
from tagbus.stream.memory.store import ListedStore

if TYPE_CHECKING:
    from tagbus.stream.memory.qdrant.collections import CollectionSpec

# Faults that are listed; all are counted.
NAMED: Final = 20

memory = typer.Typer(help="The memory: status, verify, rebuild, snapshot, restore.", no_args_is_help=True)

Name = Annotated[str | None, typer.Option("--release", help="name on the topic; default: that of encoder.folder")]
AsJson = Annotated[bool, typer.Option("--json", help="a JSON object a line")]
Repair = Annotated[bool, typer.Option("--repair", help="repair what is found, from the topics")]
Encode = Annotated[bool, typer.Option("--encode", help="encode every text again, even unchanged ones")]
Folder = Annotated[Path | None, typer.Argument(help="folder of the copy")]


@memory.callback()
def _group() -> None:
    """The memory: status, verify, rebuild, snapshot, restore."""


@memory.command("status")
def status_(name: Name = None, as_json: AsJson = False) -> None:  # noqa: FBT002 - a flag of the command line
    """Show what each kind holds and how far it is behind its topic. Code 3 if the memory is not built,
    or not from these topics."""
    settings = _of_release(name)
    found = asyncio.run(_status(settings))
    if as_json:
        for one in found:
            typer.echo(one.model_dump_json())
    else:
        _show(found)
    if wrong := next((one for one in found if one.problem), None):
        raise CheckFailed(f"workers do not use the memory of {wrong.kind}: {wrong.problem}")
    if not found or any(one.complete is False for one in found):
        raise CheckFailed("the memory is not built: `tagbus index` builds it, or `tagbus memory snapshot`")


@memory.command()
def verify(name: Name = None, repair: Repair = False, level: Level = "warning") -> None:  # noqa: FBT002 - a flag
    """Compare every point with the topics. Code 3 if a fault is found and not repaired.

    missing: a record without a point. stale: a point that differs from its record. retired: a point whose last record
    is a tombstone. foreign: a point without a record. Reads the topics twice; with TAGBUS_MEMORY__KIND=embedded no
    worker may run.
    """
    settings = _of_release(name)
    _require(settings, "server", "embedded")
    console.set_up_logging(level)
    faults = asyncio.run(_verify(settings, repair))
    if faults and not repair:
        raise CheckFailed(f"{faults} points differ from the topics; `tagbus memory verify --repair` repairs them")


@memory.command()
def rebuild(name: Name = None, encode: Encode = False, level: Level = "info") -> None:  # noqa: FBT002 - a flag
    """Rebuild the memory on a server beside the one that workers see, then swap.

    Changed settings of collections take effect. A `tagbus index` that runs meanwhile ends with code 7 when its
    collections are replaced; after a restart it continues with the new ones.
    """
    settings = _of_release(name)
    _require(settings, "server")
    console.set_up_logging(level)
    asyncio.run(_rebuild(settings, encoded=encode))


@memory.command("snapshot")
def snapshot_(folder: Folder = None, name: Name = None, level: Level = "info") -> None:
    """Copy the memory: from a server into FOLDER, else from the topics to TAGBUS_RELEASES__FOLDER/RELEASE/memory.

    Workers look for it there when they start, and read only the offsets after it.
    """
    settings = _of_release(name)
    console.set_up_logging(level)
    if settings.memory.kind == "server":
        asyncio.run(_back_up(settings, _given(folder)))
    elif folder is not None:
        raise UserError(
            f"TAGBUS_MEMORY__KIND={settings.memory.kind}: workers look for the copy in TAGBUS_RELEASES__FOLDER, "
            "expected no FOLDER"
        )
    else:
        asyncio.run(_snapshot(settings))


@memory.command()
def restore(folder: Folder = None, name: Name = None, level: Level = "info") -> None:
    """Restore the copy in FOLDER to a server; `tagbus index` then reads the offsets after it.

    Other kinds of memory need no restore: a worker that starts loads the copy from TAGBUS_RELEASES__FOLDER.
    """
    settings = _of_release(name)
    _require(settings, "server")
    console.set_up_logging(level)
    asyncio.run(_restore(settings, _given(folder)))


def _of_release(name: str | None) -> Settings:
    """The settings of a release; unchanged without a name."""
    settings = load()
    if name is None:
        return settings
    return recorded.own(settings, name, recorded.read_releases(settings).records.get(name))


def _require(settings: Settings, *kinds: str) -> None:
    if settings.memory.kind not in kinds:
        raise UserError(
            f"TAGBUS_MEMORY__KIND={settings.memory.kind}: each worker fills such a memory itself when it starts, "
            f"expected {' or '.join(kinds)}"
        )
    if settings.memory.kind == "embedded" and settings.memory.path is None:
        raise UserError("TAGBUS_MEMORY__PATH is not set: the memory is in a temporary folder of each worker")


def _given(folder: Path | None) -> Path:
    if folder is None:
        raise UserError("TAGBUS_MEMORY__KIND=server: expected the FOLDER of the copy")
    return folder


async def _status(settings: Settings) -> list[status.KindStatus]:
    release = folders.base_release(settings)
    if settings.memory.kind in ("exact", "hnsw"):
        place = folders.snapshot_folder(settings, release.name)
        if place is None:
            raise UserError(
                f"TAGBUS_MEMORY__KIND={settings.memory.kind}: each worker fills its own memory when it starts, and "
                "TAGBUS_RELEASES__FOLDER, the folder for copies of it, is not set"
            )
        return await status.of_snapshot(settings, place, release)
    _require(settings, "server", "embedded")
    async with _opened(settings) as opened:
        if settings.memory.path is not None and settings.memory.kind == "embedded":
            return await status.of_local(opened, settings.memory.path / release.name)
        return await status.of_shared(settings, opened)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Memory]:
    release = folders.base_release(settings)
    opened = await open_memory(settings.memory, release.name, release.dimension)
    try:
        yield opened
    finally:
        await opened.close()


def _show(found: list[status.KindStatus]) -> None:
    table = Table("kind", "points", "complete", "behind", "age", "where")
    for one in found:
        complete = "" if one.complete is None else "yes" if one.complete else "no"
        behind = "" if one.behind is None else f"{one.behind} offsets"
        age = "" if one.age_seconds is None else f"{one.age_seconds:.0f} s"
        table.add_row(one.kind, str(one.points), complete, behind, age, console.printable(one.place))
    console.stdout.print(table)
    for one in found:
        for words in one.differences:
            console.print_line(f"{one.kind}: {words}; `tagbus memory rebuild` rebuilds it")


async def _verify(settings: Settings, repair: bool) -> int:  # noqa: FBT001 - as the user says
    faults = 0
    async with assemble.opened(settings) as stack:
        if settings.memory.kind == "server":
            # Every point of another installation would be foreign here.
            await require_own(settings, shared_stores(stack.memory).values())
        for kind, store in stack.memory.stores.items():
            if not isinstance(store, ListedStore):
                raise TypeError(f"{type(store).__name__} keeps no points")
            faults += await _verified(audit(settings, kind, store, stack.release), stack, repair)
    return faults


async def _verified(one: Audit, stack: TaggingStack, repair: bool) -> int:  # noqa: FBT001 - as the user says
    counts: Counter[str] = Counter()
    async with aclosing(one.findings(stack.projection() if repair else None)) as findings:
        async for finding in findings:
            if counts.total() < NAMED:
                console.say(f"{finding.kind}: {finding.fault} {console.printable(finding.key)}")
            counts[finding.fault] += 1
    said = ", ".join(f"{counts[fault]} {fault}" for fault in ("missing", "stale", "retired", "foreign"))
    console.print_line(f"{one.kind:<10} {one.compared} keys: {said}{', repaired' * (repair and counts.total() > 0)}")
    return counts.total()


async def _rebuild(settings: Settings, *, encoded: bool) -> None:
    async with assemble.opened(settings) as stack:
        follower = await rebuilder(settings, stack.projection(), stack.memories, encoded=encoded)
        async with snapshot.following(follower):
            counts = [f"{await store.count()} {kind}" for kind, store in stack.memory.stores.items()]
        console.say(f"the memory of {stack.release.name} is rebuilt: {', '.join(counts)}")


async def _snapshot(settings: Settings) -> None:
    name = folders.base_release(settings).name
    folder = folders.snapshot_folder(settings, name)
    if folder is None:
        raise UserError("TAGBUS_RELEASES__FOLDER is not set: expected the folder in which workers look for releases")
    reached: dict[Partition, int] = {}

    async def tell(report: Report) -> None:
        reached.update(report.next)

    of = await asyncio.to_thread(snapshot.origin, settings)
    async with (
        assemble.opened(folders.in_process(settings)) as stack,
        snapshot.caught_up(folder, settings, stack.projection(), stack.memories, tell),
    ):
        await snapshot.save(folder, stack.memory, dict(reached), of)
    console.say(f"the memory of {name} is in {folder}")


async def _back_up(settings: Settings, folder: Path) -> None:
    from tagbus.stream.memory.qdrant.backup import BackupServer

    server = BackupServer(settings.memory)
    try:
        await server.save(_specs(settings), folder)
    finally:
        await server.close()
    console.say(f"the memory of {folders.base_release(settings).name} is in {folder}")


async def _restore(settings: Settings, folder: Path) -> None:
    from tagbus.stream.memory.qdrant.backup import BackupServer

    with MemoryTopics(settings) as topics:
        owner = await asyncio.to_thread(topics.owner)
    server = BackupServer(settings.memory)
    try:
        await server.restore(_specs(settings), folder, owner)
    finally:
        await server.close()
    console.say(
        f"the memory of {folders.base_release(settings).name} is restored; `tagbus index` reads the records since"
    )


def _specs(settings: Settings) -> "Mapping[str, CollectionSpec]":
    from tagbus.stream.memory.qdrant.collections import CollectionSpec

    release = folders.base_release(settings)
    return {kind: CollectionSpec(settings.memory.namespace, release.name, kind, release.dimension) for kind in KINDS}
