"""The memory of a release, filled beside the one in force; then the release goes to its topic."""

import asyncio
import logging

from tagbus.stream.app import assemble
from tagbus.stream.app.places import folders
from tagbus.stream.app.releases import recorded
from tagbus.stream.config import Settings
from tagbus.stream.contract.release import ReleaseRecord
from tagbus.stream.errors import UserError
from tagbus.stream.index import snapshot
from tagbus.stream.index.bootstrap import Report
from tagbus.stream.index.indexer import indexer
from tagbus.stream.kafka.message import Partition

log = logging.getLogger(__name__)


async def build(settings: Settings, record: ReleaseRecord, every: float | None) -> None:
    """Fill the memory and announce the release. `every`: seconds between snapshots while it follows; None: it does not.

    Raises UserError without releases.folder, and as the reading of the topics does.
    """
    if settings.memory.kind == "server":
        await build_shared(settings, record, every)
    else:
        await _build_snapshot(settings, record, every)


async def _build_snapshot(settings: Settings, record: ReleaseRecord, every: float | None) -> None:
    own = recorded.own(settings, record.release.name, record)
    folder = folders.snapshot_folder(settings, record.release.name)
    if folder is None:
        raise UserError("TAGBUS_RELEASES__FOLDER is not set: expected the folder in which workers look for releases")
    reached: dict[Partition, int] = {}

    async def tell(report: Report) -> None:
        reached.update(report.next)

    of = await asyncio.to_thread(snapshot.origin, own)
    async with (
        assemble.opened(folders.in_process(own)) as stack,
        snapshot.caught_up(folder, own, stack.projection(), stack.memories, tell) as task,
    ):
        saved: dict[Partition, int] = {}
        try:
            while True:
                if saved != reached:
                    saved = dict(reached)
                    # An optional topic may have been created since.
                    of = await asyncio.to_thread(snapshot.origin, own, of)
                    await snapshot.save(folder, stack.memory, saved, of)
                    counts = await stack.memory.tags.count(), await stack.memory.exemplars.count()
                    log.info("release build: %d tags and %d exemplars are in %s", *counts, folder)
                await asyncio.to_thread(recorded.announce, settings, record)
                if every is None:
                    return
                await asyncio.wait({task}, timeout=every)
                if task.done():
                    task.result()
        except asyncio.CancelledError:
            if saved and saved != reached:
                await snapshot.save(folder, stack.memory, dict(reached), of)
            raise


async def build_shared(settings: Settings, record: ReleaseRecord, every: float | None) -> None:
    """Fill a release's collections of the shared memory, announce it, and follow the topics unless `every` is None."""
    async with assemble.opened(recorded.own(settings, record.release.name, record)) as stack:
        follower = await indexer(settings, stack.projection(), stack.memories)
        async with snapshot.following(follower) as task:
            await asyncio.to_thread(recorded.announce, settings, record)
            if every is not None:
                await task
