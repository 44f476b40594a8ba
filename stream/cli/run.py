"""`tagbus run`, `tagbus feedback` and `tagbus index`: the service, the joiner of people's decisions, and what writes a
memory that workers share."""

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
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.codec import decode_content
from tagbus.stream.contract.events import Content
from tagbus.stream.errors import Poison, UserError
from tagbus.stream.health import HealthServer
from tagbus.stream.kafka.message import record_of
from tagbus.stream.kafka.ranges import read_range
from tagbus.stream.llm.batch.answers import Prepared
from tagbus.stream.llm.batch.folder import Folder
from tagbus.stream.telemetry.export import exporting

log = logging.getLogger(__name__)

Level = Annotated[Literal["debug", "info", "warning", "error"], typer.Option("--log", help="least level of log lines")]


def run(
    start: Annotated[
        str | None, typer.Option("--from", help="of a backfill: earliest, a time, 2h ago, or offsets 0:1041,1:977")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="of a backfill: end (now), a time, or 2h ago")] = None,
    group: Annotated[str | None, typer.Option("--group", help="of a backfill: a consumer group of its own")] = None,
    output: Annotated[str | None, typer.Option("--output", help="of a backfill: a topic of its own")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="of a backfill: contents a second at most")] = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            "--batch",
            help="of a backfill: ask the language model by its batch API first, for half the price; a folder that "
            "keeps how far it is",
        ),
    ] = None,
    every: Annotated[float, typer.Option("--every", min=0.01, help="of a batch: seconds between two looks")] = 60.0,
    level: Level = "info",
) -> None:
    """Tag what comes on `content` until SIGTERM. Settings come from the environment: `tagbus config`.

    /livez, /readyz and /metrics are on TAGBUS_HEALTH__PORT. A second SIGTERM ends it at once; nothing is lost by it.
    With --from, --group and --output it is a backfill, which ends when it has reached the end. With --batch that asks
    the language model about all its contents before it begins, which takes up to a day.
    """
    settings = _loaded(level)
    backfill = plan(settings, Asked(start, until, group, output, rate))
    if backfill is None:
        if batch is not None:
            raise UserError("--batch is for a backfill: expected --from, --group and --output beside it")
        _serve(settings, Service(settings))
    elif batch is None:
        _serve(settings, Service(settings, backfill.settings, backfill.read_range))
    else:
        with Folder(batch) as folder:
            about = f"--from {start} --until {until or 'end'}"
            answers = _asked(settings, backfill, folder, about, every)
            _serve(settings, Service(settings, backfill.settings, backfill.read_range, answers))


def _asked(settings: Settings, backfill: Backfill, folder: Folder, about: str, every: float) -> Prepared:
    """What the language model answers in a batch about the contents of a backfill."""
    try:
        from tagbus.stream.app.judge.batch import Errand, carried
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'tagbus[llm]'") from None

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
    """Join what people decide (topic `feedback`) to exemplars until SIGTERM.

    /livez, /readyz and /metrics are on TAGBUS_HEALTH__PORT. Run one, or several: they share the partitions.
    """
    settings = _loaded(level)
    _serve(settings, JoinService(settings))


def _loaded(level: Literal["debug", "info", "warning", "error"]) -> Settings:
    """The settings, and the log as they say. It is set up before they are read, which may log."""
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
    """SIGTERM, SIGINT, and SIGHUP of a terminal that is closed, unless `nohup` has it ignored. Killed by it, a worker
    would not leave its group, and its partitions would wait for the end of its session."""
    kept = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([] if kept else [signal.SIGHUP])]


def index(level: Level = "info") -> None:
    """Write the memory that workers share (TAGBUS_MEMORY__KIND=server) until SIGTERM. Run one of it.

    /livez, /readyz and /metrics are on TAGBUS_HEALTH__PORT. It goes on where it was stopped; after longer than
    TAGBUS_MEMORY__TOMBSTONE_HOURS it reads everything again.
    """
    settings = _loaded(level)
    if settings.memory.kind != "server":
        raise UserError(f"TAGBUS_MEMORY__KIND={settings.memory.kind}: such a memory is not shared, expected server")
    service = IndexService(settings)
    health = HealthServer(settings.health, service.not_live, service.not_ready)
    try:
        with exporting(settings):
            asyncio.run(until_stopped(service.run(), "index"))
    finally:
        health.close()


async def until_stopped(service: Coroutine[None, None, None], name: str) -> None:
    """Run a service until a signal ends it. Raises what it raises."""
    running = asyncio.create_task(service)
    for number in _stopping():
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        log.info("%s: stopped", name)
