"""Liveness, readiness and metrics over HTTP on one port: /livez, /readyz, /metrics.

Live means that the poll loop turns, regardless of dependencies. Ready means that partitions are assigned and that
encoder and memory answer a real request.
"""

import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from tagbus.stream import telemetry
from tagbus.stream.config import HealthSettings
from tagbus.stream.errors import UserError

log = logging.getLogger(__name__)

# Returns problems in words; empty if there are none.
Check = Callable[[], list[str]]

# The limit of open connections: one more closes the oldest. Probes and scrapes take milliseconds, so the oldest is one
# that sends nothing, or a byte every few seconds.
CONNECTIONS: Final = 64
PLAIN: Final = "text/plain; charset=utf-8"
HERE: Final = b"/livez, /readyz and /metrics are here\n"


class HealthServer:
    """Serves the three endpoints from its own threads until closed."""

    def __init__(self, settings: HealthSettings, live: Check, ready: Check, notes: Check = list) -> None:
        """`notes`: what /readyz reports even when ready. Raises UserError if the address cannot be bound."""
        try:
            self._server = _Server(settings.host, settings.port, _handler(live, ready, notes))
        except OSError as error:
            raise UserError(
                f"TAGBUS_HEALTH__HOST={settings.host} TAGBUS_HEALTH__PORT={settings.port}: {error.strerror}; "
                "choose another port, or 0 for any"
            ) from None
        # Computed by whoever reads it: in a deployment without probes nothing asks /readyz.
        telemetry.READY.set_function(lambda: float(not ready()))
        # Interval of shutdown checks in seconds; the default of 0.5 s would delay every stop.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="health", daemon=True)
        self._thread.start()
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        log.info("health and metrics on http://%s:%d", host, self.port)

    @property
    def port(self) -> int:
        """The bound port."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        telemetry.READY.set_function(lambda: 0.0)


class _Server(ThreadingHTTPServer):
    """Binds IPv4 or IPv6, depending on the host; `::` binds both."""

    daemon_threads = True
    # A busy machine may accept late; the default is 5.
    request_queue_size = CONNECTIONS

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self._lock = threading.Lock()
        # In order of arrival.
        self._open: dict[socket.socket, None] = {}
        # Not resolved: it may be a name, and a name that only IPv6 has is rare.
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            # The system default may differ.
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # HTTPServer's own resolves the full name of this host, which is not needed.
        socketserver.TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        with self._lock:
            self._open[connection] = None
            oldest = next(iter(self._open)) if len(self._open) > CONNECTIONS else None
            if oldest is not None:
                del self._open[oldest]
        if oldest is not None:
            # Its thread reads the end of the stream, and closes it.
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        return connection, address

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        with self._lock:
            if isinstance(request, socket.socket):
                self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - see socketserver
        # A probe that times out closes its connection: that is not an error.
        if not isinstance(sys.exception(), OSError):
            log.error("health: no answer", exc_info=True)


def _handler(live: Check, ready: Check, notes: Check) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        # A client that sends nothing blocks a thread no longer than this.
        timeout = 10

        def do_GET(self) -> None:
            match self.path.split("?")[0]:
                case "/metrics":
                    # The version that every scraper reads. 1.0.0 adds names that ours are not.
                    self._answer(HTTPStatus.OK, generate_latest(), CONTENT_TYPE_PLAIN_0_0_4)
                case "/livez":
                    self._verdict(live(), [])
                case "/readyz":
                    self._verdict(ready(), notes())
                case _:
                    self._answer(HTTPStatus.NOT_FOUND, HERE, PLAIN)

        do_HEAD = do_GET

        def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
            """Answer http.server's errors with a line of text: its own answer is a page of HTML."""
            if code == HTTPStatus.NOT_IMPLEMENTED:
                self._answer(HTTPStatus.METHOD_NOT_ALLOWED, b"GET and HEAD are allowed\n", PLAIN)
            else:
                self._answer(HTTPStatus(code), f"{HTTPStatus(code).phrase}\n".encode(), PLAIN)

        def _verdict(self, wrong: list[str], notes: list[str]) -> None:
            body = "\n".join([*(wrong or ["ok"]), *notes])
            status = HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK
            self._answer(status, f"{body}\n".encode(), PLAIN)

        def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            if status == HTTPStatus.METHOD_NOT_ALLOWED:
                self.send_header("Allow", "GET, HEAD")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def version_string(self) -> str:
            """Only the name: the Python version is not disclosed."""
            return "tagbus"

        def log_message(self, format: str, *args: object) -> None:
            """Suppress access logs: probes come every few seconds."""

    return Handler
