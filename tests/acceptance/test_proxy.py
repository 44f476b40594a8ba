"""The proxy in front of a dependency, and its outages."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tagbus.stream.acceptance.proxy import Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                one, _ = server.accept()
                threading.Thread(target=back, args=[one], daemon=True).start()

    def back(one: socket.socket) -> None:
        with one, suppress(OSError):
            while data := one.recv(1000):
                one.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1]
    server.close()


def said(proxy: Proxy) -> bytes:
    host, _, port = proxy.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as one:
        one.sendall(b"hello")
        return one.recv(1000)


def test_bytes_pass_but_in_an_outage(echo: int) -> None:
    with Proxy("127.0.0.1", echo) as proxy:
        assert said(proxy) == b"hello"
        host, _, port = proxy.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as before:
            before.sendall(b"one")
            assert before.recv(1000) == b"one"
            with proxy.outage():
                with suppress(ConnectionResetError):
                    assert before.recv(1000) == b""
                with pytest.raises(ConnectionRefusedError):
                    said(proxy)
        assert said(proxy) == b"hello"


def test_a_dependency_that_is_not_there_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with Proxy("127.0.0.1", port) as proxy, suppress(ConnectionResetError):
        assert said(proxy) == b""
