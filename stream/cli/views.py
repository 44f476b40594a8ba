"""`tagbus views`: views over `tagged` for recommenders."""

import asyncio
import logging
from typing import TYPE_CHECKING

from tagbus.stream.cli.run import Level, loaded, until_stopped
from tagbus.stream.errors import UserError
from tagbus.stream.health import HealthServer
from tagbus.stream.telemetry.export import exporting

if TYPE_CHECKING:
    from tagbus.stream.views.service import ViewsService

# The loggers of Faust and its client, which log every step, and at `debug` whole records with their tags.
CHATTY = ("faust", "mode", "aiokafka", "rocksdict", "tagbus.stream.views.transport")
# It logs each malformed request with a stack and its raw line, as an error. The API logs the errors that are its own.
REQUESTS = "aiohttp.server"


def views(level: Level = "info") -> None:
    """Keep views over `tagged` for recommenders until SIGTERM, and serve them over HTTP on TAGBUS_VIEWS__PORT.

    Run one or several: they share the partitions, and any of them answers for all. `tagbus topics create --views`
    creates the topics. /livez, /readyz and /metrics are on TAGBUS_HEALTH__PORT.
    """
    settings = loaded(level)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger(REQUESTS).setLevel(logging.CRITICAL)
    service_class = _service()
    service = service_class(settings)
    health = HealthServer(settings.health, service.not_live, service.not_ready)
    try:
        with exporting(settings):
            asyncio.run(until_stopped(service.run(), "views"))
    finally:
        health.close()


def _service() -> "type[ViewsService]":
    """Imported here because Faust is an extra, and takes a second to import."""
    try:
        from tagbus.stream.views.service import ViewsService
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "tagbus":
            raise
        raise UserError(f"{package} is not installed: pip install 'tagbus[views]'") from None
    return ViewsService
