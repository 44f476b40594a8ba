"""A collector that accepts everything by OTLP over HTTP and keeps nothing, in a separate process.

GET returns the number of exports received.
"""

import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import Popen

from tagbus.stream.local.child import HOST, free_ports

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support import wait_until


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    exports = 0

    def do_GET(self) -> None:
        self._answer(b"%d" % _Handler.exports)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        _Handler.exports += 1
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing."""


@contextmanager
def sink() -> Iterator[str]:
    """Run the collector; yield its URL."""
    (port,) = free_ports(1)
    process = Popen([sys.executable, __file__, str(port)])
    url = f"http://{HOST}:{port}"
    try:
        wait_until(lambda: exports(url) is not None, 60, "a collector that answers")
        yield url
    finally:
        process.kill()
        process.wait()


def exports(url: str) -> int | None:
    """Return the number of exports received; None while it does not answer."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - a port of this machine
            return int(answer.read())
    except OSError:
        return None


if __name__ == "__main__":
    ThreadingHTTPServer((HOST, int(sys.argv[1])), _Handler).serve_forever()
