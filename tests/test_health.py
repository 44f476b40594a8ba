"""Live, ready and metrics over HTTP."""

import socket
from collections.abc import Iterator

import pytest

from tagbus.stream.config import HealthSettings
from tagbus.stream.errors import UserError
from tagbus.stream.health import HealthServer
from tests.support import get


class Said:
    """What the checks say; a test changes it."""

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


def test_what_is_wrong_is_503_and_said(server: HealthServer, said: Said) -> None:
    said.ready = ["no partitions assigned", "the encoder does not answer"]
    assert get(server.port, "/readyz") == (503, "no partitions assigned\nthe encoder does not answer\n")
    assert get(server.port, "/livez") == (200, "ok\n")
    said.live = ["the poll loop has not turned for 30 s"]
    assert get(server.port, "/livez") == (503, "the poll loop has not turned for 30 s\n")


def test_checks_are_asked_each_time(server: HealthServer, said: Said) -> None:
    said.ready = ["not yet"]
    assert get(server.port, "/readyz")[0] == 503
    said.ready = []
    assert get(server.port, "/readyz")[0] == 200


def test_metrics_have_one_prefix_and_the_format_of_prometheus(server: HealthServer) -> None:
    status, text = get(server.port, "/metrics")
    assert status == 200
    for name in ("tagbus_contents_total", "tagbus_taxonomy_tags", "tagbus_ready", "tagbus_memory_remaining_offsets"):
        assert f"# HELP {name} " in text


def test_any_other_path_says_what_there_is(server: HealthServer) -> None:
    status, text = get(server.port, "/../etc/passwd")
    assert status == 404
    assert text == "/livez, /readyz and /metrics are here\n"


def test_a_query_does_not_matter(server: HealthServer) -> None:
    assert get(server.port, "/livez?verbose=1") == (200, "ok\n")


def test_a_client_that_sends_nothing_stops_nobody_else(server: HealthServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)):
        assert get(server.port, "/livez") == (200, "ok\n")


def test_it_listens_on_this_machine_alone_unless_told(server: HealthServer) -> None:
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
