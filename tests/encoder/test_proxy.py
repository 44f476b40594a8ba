"""Triton is reached without the proxies of the environment, which would see every text."""

import socket
import threading

import pytest
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tagbus.stream.encoder.endpoint import CHANNEL


async def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[bytes]()
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def serve() -> None:
            try:
                while True:
                    connection, _ = proxy.accept()
                    asked.append(connection.recv(200))
                    connection.close()
            except OSError:
                return

        threading.Thread(target=serve, daemon=True).start()
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        client = InferenceServerClient("triton.invalid:8001", channel_args=list(CHANNEL))
        try:
            with pytest.raises(InferenceServerException):
                await client.is_server_live(client_timeout=30)
        finally:
            await client.close()
        proxy.shutdown(socket.SHUT_RDWR)
    assert asked == []
