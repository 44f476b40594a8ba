"""Export to a collector, only if the settings name one."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from tagbus.stream.config import Settings
from tagbus.stream.errors import UserError


@contextmanager
def exporting(settings: Settings) -> Iterator[None]:
    """Send spans and metrics while inside, if otel.endpoint is set. Raises UserError if the extra is missing."""
    if settings.otel.endpoint is None:
        yield
        return
    with exporter(settings).exporting(settings):
        yield


def exporter(settings: Settings) -> ModuleType:
    """The module that exports. Raises UserError if the extra is missing."""
    try:
        from tagbus.stream.telemetry import otlp
    except ImportError as error:
        raise UserError(
            f"TAGBUS_OTEL__ENDPOINT={settings.otel.endpoint}: {error.name} is not installed, "
            "`pip install 'tagbus[otel]'` installs it"
        ) from None
    return otlp
