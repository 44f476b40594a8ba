"""One release in force after another."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from tagbus.stream.app.places import folders
from tagbus.stream.app.releases import recorded
from tagbus.stream.config import Settings
from tagbus.stream.contract.release import Active, encode_release
from tagbus.stream.encoder.release import Release, load_recorded, load_release
from tagbus.stream.errors import UserError
from tagbus.stream.index.shared import SharedMemory
from tagbus.stream.memory import Memory, open_memory

# An indexer that follows says so every 30 s, also where nothing happens.
SILENT_SECONDS = 120.0


def activate(settings: Settings, name: str) -> str:
    """Put a release in force. Returns the one before, which is `name` where it was in force already.

    Raises UserError for one that is not on the topic, ReleaseMismatch for one whose files are others.
    """
    releases = recorded.read_releases(settings)
    active, base = recorded.in_force(settings, releases), folders.base_release(settings).name
    if name == active:
        return active
    if name != base:
        recorded.on_topic(releases, name)
    for needed in dict.fromkeys((active, name)):
        if needed == base and needed not in releases.records:
            # Every worker keeps a release that is on the topic loaded, which makes an immediate rollback possible.
            recorded.publish(settings, encode_release(recorded.record_for(settings, base, None)))
    if name in releases.records:
        load_recorded(folders.release_folder(settings, name), releases.records[name].release)
    asyncio.run(_require_followed(recorded.own(settings, name, releases.records.get(name))))
    recorded.publish(settings, encode_release(Active(release=name, time=datetime.now(UTC))))
    return active


@asynccontextmanager
async def shared_memory(settings: Settings, one: Release) -> AsyncIterator[Memory]:
    """The memory of a release on its server."""
    memory = await open_memory(settings.memory, one.name, one.dimension)
    try:
        yield memory
    finally:
        await memory.close()


async def _require_followed(settings: Settings) -> None:
    """Raises UserError if the release's shared memory is missing or no longer written."""
    if settings.memory.kind != "server":
        return
    async with shared_memory(settings, load_release(folders.model_folder(settings))) as memory:
        view = SharedMemory(settings, [memory])
        await view.look()
    name = memory.release
    if problem := view.problem():
        raise UserError(f"{problem}; start `tagbus release build {name} --follow` first")
    if view.age() > SILENT_SECONDS:
        raise UserError(
            f"no builder follows the memory of {name}, which was last current {view.age():.0f} s ago: start "
            f"`tagbus release build {name} --follow` first"
        )
