"""A real local HTTP server that answers by a script: statuses, headers, bodies, silence, cut answers."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pydantic import JsonValue


@dataclass(frozen=True)
class Say:
    """One answer. `cut`: bytes after which the connection ends early; `silent`: no answer; `trickle`: seconds before
    each of its bytes."""

    body: object = field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    silent: bool = False
    trickle: float = 0.0

    @property
    def bytes(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Request:
    """A request that the server received."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: dict[str, JsonValue]
    raw: bytes = b""


Script = Callable[[Request], Say]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.ended = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def to(self, path: str) -> list[Request]:
        """The requests to a path below /v1."""
        return [one for one in self.requests if one.path == f"/v1{path}"]

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that disconnect."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["content-length"])))

    def _answer(self, raw: bytes) -> None:
        is_json = self.headers.get("content-type", "") == "application/json"
        request = Request(self.command, self.path, dict(self.headers), json.loads(raw) if is_json else {}, raw)
        self.server.requests.append(request)
        say = self.server.script(request)
        if say.silent:
            self.server.ended.wait(60)
            self.close_connection = True
            return
        body = say.bytes
        self.send_response(say.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        for name, value in say.headers.items():
            self.send_header(name, value)
        self.end_headers()
        for part in self._parts(say, body):
            self.wfile.write(part)
        self.close_connection = self.close_connection or say.cut is not None

    def _parts(self, say: Say, body: bytes) -> Iterator[bytes]:
        if not say.trickle:
            yield body[: say.cut]
            return
        for place in range(len(body)):
            if self.server.ended.wait(say.trickle):
                return
            yield body[place : place + 1]

    def log_message(self, *args: object) -> None:
        """Log nothing."""


@contextmanager
def serving(script: Script) -> Iterator[Server]:
    server = Server(script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        thread.join(30)
        server.server_close()


ABSENT = Say({"error": {"message": "not found", "type": "not_found_error", "code": 404}}, 404)


def routed(**paths: Script | Say) -> Script:
    """A script by the last part of the path: `decisions=`, `systemone=`, `completions=`, `models=`; 404 for others."""

    def script(request: Request) -> Say:
        found = paths.get(request.path.rpartition("/")[2], ABSENT)
        return found if isinstance(found, Say) else found(request)

    return script
