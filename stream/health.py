"""Liveness, readiness and metrics over HTTP on one port: /livez, /readyz, /metrics.

Live means that the poll loop turns, whatever the dependencies do. Ready means that partitions are assigned and that
encoder and memory answer a real request.
"""

import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from tagbus.stream.config import HealthSettings
from tagbus.stream.errors import UserError

log = logging.getLogger(__name__)

# Returns problems in words; empty if there are none.
Check = Callable[[], list[str]]


class HealthServer:
    """Serves the three endpoints from its own threads until closed."""

    def __init__(self, settings: HealthSettings, live: Check, ready: Check, notes: Check = list) -> None:
        """`notes`: what /readyz reports although it is ready. Raises UserError if the address cannot be bound."""
        try:
            self._server = ThreadingHTTPServer((settings.host, settings.port), _handler(live, ready, notes))
        except OSError as error:
            raise UserError(
                f"TAGBUS_HEALTH__HOST={settings.host} TAGBUS_HEALTH__PORT={settings.port}: {error.strerror}; "
                "choose another port, or 0 for any"
            ) from None
        self._server.daemon_threads = True
        # Interval of shutdown checks in seconds; the default of 0.5 s delayed every stop.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="health", daemon=True)
        self._thread.start()
        log.info("health and metrics on http://%s:%d", settings.host, self.port)

    @property
    def port(self) -> int:
        """The bound port."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(live: Check, ready: Check, notes: Check) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        # A client that sends nothing blocks a thread no longer than this.
        timeout = 10

        def do_GET(self) -> None:
            match self.path.split("?")[0]:
                case "/metrics":
                    self._answer(200, generate_latest(), CONTENT_TYPE_LATEST)
                case "/livez":
                    self._verdict(live(), [])
                case "/readyz":
                    self._verdict(ready(), notes())
                case _:
                    self._answer(404, b"/livez, /readyz and /metrics are here\n", "text/plain")

        def _verdict(self, wrong: list[str], notes: list[str]) -> None:
            body = "\n".join([*(wrong or ["ok"]), *notes])
            self._answer(503 if wrong else 200, f"{body}\n".encode(), "text/plain; charset=utf-8")

        def _answer(self, status: int, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Suppress access logs: probes come every few seconds."""

    return Handler
