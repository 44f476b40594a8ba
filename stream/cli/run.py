"""`tagbus run`, `tagbus feedback` and `tagbus index`: the service, the joiner of people's decisions, and the writer of
a shared memory."""

import asyncio
import logging
import signal
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from tagbus.stream.app import console
from tagbus.stream.app.indexing import IndexService
from tagbus.stream.app.joining.service import JoinService
from tagbus.stream.app.releases.backfill import Asked, Backfill, plan
from tagbus.stream.app.service import Service
from tagbus.stream.bus.process.tag_processor import topics_of
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.codec import decode_content
from tagbus.stream.contract.events import Content
from tagbus.stream.errors import Poison, UserError
from tagbus.stream.health import HealthServer
from tagbus.stream.kafka.access import missing_rights
from tagbus.stream.kafka.message import record_of
from tagbus.stream.kafka.ranges import read_range
from tagbus.stream.llm.batch.answers import Prepared
from tagbus.stream.llm.batch.folder import Folder
from tagbus.stream.telemetry.export import exporting

log = logging.getLogger(__name__)

Level = Annotated[Literal["debug", "info", "warning", "error"], typer.Option("--log", help="minimum log level")]


def run(
    start: Annotated[
        str | None, typer.Option("--from", help="backfill: start at earliest, a time, 2h, or offsets 0:1041,1:977")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="backfill: stop at end (now), a time, or 2h")] = None,
    group: Annotated[str | None, typer.Option("--group", help="backfill: a separate consumer group")] = None,
    output: Annotated[str | None, typer.Option("--output", help="backfill: a separate output topic")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="backfill: maximum contents a second")] = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            "--batch",
            help="backfill: ask the language model through its batch API first, for half the price; a folder that "
            "keeps the progress",
        ),
    ] = None,
    every: Annotated[float, typer.Option("--every", min=0.01, help="seconds between polls of the batch")] = 60.0,
    level: Level = "info",
) -> None:
    """Tag the records of `content` until SIGTERM. Settings come from the environment: `tagbus config`.

    /livez, /readyz and /metrics are on TAGBUS_HEALTH__PORT. A second SIGTERM ends it immediately; nothing is lost. With
    --from, --group and --output it is a backfill, which ends at the end of its range. With --batch a backfill first
    asks the language model about all its contents, which takes up to a day.
    """
    settings = loaded(level)
    backfill = plan(settings, Asked(start, until, group, output, rate))
    if backfill is None:
        if batch is not None:
            raise UserError("--batch is for a backfill, expected --from, --group and --output with it")
        _serve(settings, Service(settings))
    elif batch is None:
        _serve(settings, Service(settings, backfill.settings, backfill.read_range))
    else:
        with Folder(batch) as folder:
            about = f"--from {start} --until {until or 'end'}"
            answers = _asked(settings, backfill, folder, about, every)
            _serve(settings, Service(settings, backfill.settings, backfill.read_range, answers))


def _asked(settings: Settings, backfill: Backfill, folder: Folder, about: str, every: float) -> Prepared:
    """The language model's batch answers about the contents of a backfill."""
    try:
        from tagbus.stream.app.judge.batch import Errand, carried
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'tagbus[llm]'") from None

    # The batch costs money: what it answers must be able to go out.
    if refused := missing_rights(backfill.settings.kafka, topics_of(backfill.settings).operations):
        raise refused

    def contents() -> Iterator[Content]:
        for message in read_range(settings.kafka, backfill.offsets(settings)):
            try:
                event = decode_content(record_of(message))
            except Poison:
                continue
            if isinstance(event, Content):
                yield event

    return asyncio.run(carried(settings, folder, Errand(folder.path, about, contents, every))).answers


def feedback(level: Level = "info") -> None:
    """Join people's decisions (topic `feedback`) to exemplars until SIGTERM.

    /livez, /readyz and /metrics are on TAGBUS_HEALTH__PORT. Run one, or several: they share the partitions.
    """
    settings = loaded(level)
    _serve(settings, JoinService(settings))


def loaded(level: Literal["debug", "info", "warning", "error"]) -> Settings:
    """Load the settings and set up logging as they say. Logging is set up first, because reading them may log."""
    console.set_up_logging(level)
    settings = load()
    console.set_up_logging(level, settings.log.format)
    return settings


def _serve(settings: Settings, service: Service | JoinService) -> None:
    for name in _stopping():
        signal.signal(name, service.on_signal)
    health = HealthServer(settings.health, service.not_live, service.not_ready, service.notes)
    try:
        with exporting(settings):
            service.worker.run()
    finally:
        health.close()


def _stopping() -> list[signal.Signals]:
    """SIGTERM, SIGINT, and SIGHUP of a closed terminal, unless `nohup` ignores it. A worker killed by SIGHUP would not
    leave its group, and its partitions would stay assigned until its session times out."""
    kept = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([] if kept else [signal.SIGHUP])]


def index(level: Level = "info") -> None:
    """Write the shared memory (TAGBUS_MEMORY__KIND=server) until SIGTERM. Run exactly one.

    /livez, /readyz and /metrics are on TAGBUS_HEALTH__PORT. It resumes where it was stopped; if that is longer ago than
    TAGBUS_MEMORY__TOMBSTONE_HOURS, it reads everything again.
    """
    settings = loaded(level)
    if settings.memory.kind != "server":
        raise UserError(f"TAGBUS_MEMORY__KIND={settings.memory.kind}: this memory is not shared, expected server")
    service = IndexService(settings)
    health = HealthServer(settings.health, service.not_live, service.not_ready)
    try:
        with exporting(settings):
            asyncio.run(until_stopped(service.run(), "index"))
    finally:
        health.close()


async def until_stopped(service: Coroutine[None, None, None], name: str) -> None:
    """Run a service until a signal ends it. Its errors propagate."""
    running = asyncio.create_task(service)
    for number in _stopping():
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        log.info("%s: stopped", name)
