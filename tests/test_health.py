"""Live, ready and metrics over HTTP."""

import socket
import struct
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPResponse

import pytest

from tagbus.stream import telemetry
from tagbus.stream.config import HealthSettings
from tagbus.stream.errors import UserError
from tagbus.stream.health import CONNECTIONS, HealthServer
from tests.support import get, wait_until


class Said:
    """The results of the checks, set by a test."""

    def __init__(self) -> None:
        self.live: list[str] = []
        self.ready: list[str] = []


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def server(said: Said) -> Iterator[HealthServer]:
    server = HealthServer(HealthSettings(port=0), lambda: said.live, lambda: said.ready)
    yield server
    server.close()


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_nothing_wrong_is_200(server: HealthServer, path: str) -> None:
    assert get(server.port, path) == (200, "ok\n")


def test_a_problem_is_503_with_its_text(server: HealthServer, said: Said) -> None:
    said.ready = ["no partitions assigned", "the encoder does not answer"]
    assert get(server.port, "/readyz") == (503, "no partitions assigned\nthe encoder does not answer\n")
    assert get(server.port, "/livez") == (200, "ok\n")
    said.live = ["the poll loop has been stalled for 30 s"]
    assert get(server.port, "/livez") == (503, "the poll loop has been stalled for 30 s\n")


def test_checks_are_asked_each_time(server: HealthServer, said: Said) -> None:
    said.ready = ["not yet"]
    assert get(server.port, "/readyz")[0] == 503
    said.ready = []
    assert get(server.port, "/readyz")[0] == 200


def test_metrics_have_one_prefix_and_the_format_of_prometheus(server: HealthServer) -> None:
    assert telemetry.READY  # what registers them, whichever module was imported before
    status, text = get(server.port, "/metrics")
    assert status == 200
    for name in ("tagbus_contents_total", "tagbus_taxonomy_tags", "tagbus_ready", "tagbus_memory_remaining_offsets"):
        assert f"# HELP {name} " in text


def test_any_other_path_lists_the_paths(server: HealthServer) -> None:
    status, text = get(server.port, "/../etc/passwd")
    assert status == 404
    assert text == "/livez, /readyz and /metrics are here\n"


def test_a_query_does_not_matter(server: HealthServer) -> None:
    assert get(server.port, "/livez?verbose=1") == (200, "ok\n")


def test_a_silent_client_does_not_block_others(server: HealthServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)):
        assert get(server.port, "/livez") == (200, "ok\n")


def test_it_listens_on_loopback_by_default(server: HealthServer) -> None:
    assert server._server.server_address[0] == "127.0.0.1"


def test_a_port_in_use_is_one_line_that_says_what_to_set(server: HealthServer) -> None:
    with pytest.raises(UserError) as raised:
        HealthServer(HealthSettings(port=server.port), list, list)
    assert str(raised.value).splitlines() == [
        f"TAGBUS_HEALTH__HOST=127.0.0.1 TAGBUS_HEALTH__PORT={server.port}: Address already in use; "
        "choose another port, or 0 for any"
    ]


def test_the_port_is_free_again_when_it_is_closed() -> None:
    first = HealthServer(HealthSettings(port=0), list, list)
    port = first.port
    first.close()
    second = HealthServer(HealthSettings(port=port), list, list)
    assert second.port == port
    second.close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_the_users_mistake(host: str) -> None:
    with pytest.raises(UserError, match=f"TAGBUS_HEALTH__HOST={host}"):
        HealthServer(HealthSettings(host=host, port=0), list, list)


def raw(port: int, request: bytes, host: str = "127.0.0.1") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to these bytes."""
    with socket.create_connection((host, port), 120) as client:
        client.sendall(request)
        answer = HTTPResponse(client, method=request.split(b" ")[0].decode())
        answer.begin()
        return answer.status, dict(answer.headers), answer.read()


def test_metrics_are_in_the_version_that_every_scraper_reads(server: HealthServer) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=120) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_a_probe_that_asks_for_the_headers_alone_gets_them(server: HealthServer, path: str) -> None:
    status, headers, _ = raw(server.port, f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert status == 200
    assert int(headers["Content-Length"]) > 0
    with socket.create_connection(("127.0.0.1", server.port), 120) as client:
        client.sendall(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        with client.makefile("rb") as stream:
            assert stream.read().endswith(b"\r\n\r\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "BREW"])
def test_a_method_that_changes_something_is_refused_in_a_line(server: HealthServer, method: str) -> None:
    status, headers, body = raw(server.port, f"{method} /livez HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (status, headers["Allow"], body) == (405, "GET, HEAD", b"GET and HEAD are allowed\n")


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", id="path"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: x\r\n" % n for n in range(500)) + b"\r\n", id="headers"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"<a" * 40_000 + b"\r\n\r\n", id="line"),
    ],
)
def test_a_request_that_is_none_is_answered_without_markup(server: HealthServer, request_: bytes) -> None:
    status, headers, body = raw(server.port, request_)
    assert status >= 400
    assert headers["Content-Type"].startswith("text/plain")
    assert b"<" not in body


def test_clients_that_hang_up_leave_nothing_on_standard_error(
    server: HealthServer, capfd: pytest.CaptureFixture[str]
) -> None:
    for request in (b"GET /metrics HTTP/1.1\r\n\r\n", b"GET /met", b"\x16\x03\x01\x02\x00\r\n\r\n"):
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", server.port), 120) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(request)
    wait_until(lambda: not server._server._open, 120, "all of them closed")
    assert get(server.port, "/livez") == (200, "ok\n")
    assert capfd.readouterr().err == ""


def test_a_check_that_fails_is_logged_and_the_next_one_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> list[str]:
        raise RuntimeError("no such check")

    server = HealthServer(HealthSettings(port=0), broken, list)
    try:
        assert get(server.port, "/livez")[0] == 0
        assert get(server.port, "/readyz") == (200, "ok\n")
    finally:
        server.close()
    assert "no such check" in caplog.text


def test_connections_that_send_nothing_are_closed_for_a_probe(server: HealthServer) -> None:
    with ExitStack() as idle:
        before = threading.active_count()
        for _ in range(3 * CONNECTIONS):
            idle.enter_context(socket.create_connection(("127.0.0.1", server.port), 120))
        assert get(server.port, "/livez") == (200, "ok\n")
        wait_until(lambda: threading.active_count() <= before + CONNECTIONS, 120, "threads that end")
        assert get(server.port, "/livez") == (200, "ok\n")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize(("host", "asked"), [("::1", ["::1"]), ("::", ["::1", "127.0.0.1"])])
def test_ipv6_alone_and_both(host: str, asked: list[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    server = HealthServer(HealthSettings(host=host, port=0), list, list)
    try:
        for one in asked:
            assert raw(server.port, b"GET /livez HTTP/1.1\r\n\r\n", one)[0] == 200
    finally:
        server.close()
    assert f"http://[{host}]:{server.port}" in caplog.text


def test_no_name_is_looked_up_for_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked_up(*_: object) -> str:
        raise AssertionError("a name was looked up")

    monkeypatch.setattr(socket, "getfqdn", looked_up)
    monkeypatch.setattr(socket, "gethostbyaddr", looked_up)
    HealthServer(HealthSettings(host="0.0.0.0", port=0), list, list).close()  # noqa: S104 - for a moment


def test_the_metric_is_readiness_where_nothing_asks_readyz(server: HealthServer, said: Said) -> None:
    assert "\ntagbus_ready 1.0\n" in get(server.port, "/metrics")[1]
    said.ready = ["no partitions assigned"]
    assert "\ntagbus_ready 0.0\n" in get(server.port, "/metrics")[1]
