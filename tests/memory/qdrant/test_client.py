"""The connection to a Qdrant server: its address, its certificates, and the meaning of its answers and its silence."""

import logging
import socket
import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr

from tagbus.stream.config import MemorySettings
from tagbus.stream.errors import DependencyDown, Fatal, MemoryLost, Overloaded, TagbusError, UserError
from tagbus.stream.memory.qdrant.client import connect
from tests.memory.qdrant.parts import answering, settings


async def ask(given: MemorySettings) -> None:
    server = connect(given)
    try:
        await server.call(server.client.get_collection("tagbus-r1-tags"))
    finally:
        await server.client.close()


async def test_a_missing_server_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(DependencyDown, match=f"Qdrant at {url} does not answer"):
        await ask(settings(url))


async def test_a_server_that_says_nothing_is_overloaded_at_the_deadline() -> None:
    async with answering("") as url:
        with pytest.raises(Overloaded, match=f"Qdrant at {url} did not answer within 0.2 s"):
            await ask(settings(url, deadline_seconds=0.2))


@pytest.mark.parametrize(
    ("head", "error", "said"),
    [
        ("503 Service Unavailable", DependencyDown, "answered 503 Service Unavailable"),
        ("500 Internal Server Error", DependencyDown, "answered 500"),
        ("429 Too Many Requests", Overloaded, "answered 429"),
        ("429 Too Many Requests\r\nRetry-After: 3", Overloaded, "overloaded"),
        ("408 Request Timeout", Overloaded, "answered 408"),
        ("413 Payload Too Large", Overloaded, "800000 bytes is too large, lower TAGBUS_MEMORY__REQUEST_BYTES"),
        ("200 OK", DependencyDown, "does not answer like Qdrant"),
        ("401 Unauthorized", UserError, "does not accept the key in TAGBUS_MEMORY__API_KEY"),
        ("403 Forbidden", UserError, "does not accept the key in TAGBUS_MEMORY__API_KEY"),
        ("404 Not Found", MemoryLost, "a collection is missing"),
        ("400 Bad Request", Fatal, "answered 400 Bad Request: b'{}'"),
    ],
)
async def test_what_a_refusal_means(head: str, error: type[Exception], said: str) -> None:
    async with answering(head) as url:
        with pytest.raises(error, match=said) as caught:
            await ask(settings(url))
    assert url in str(caught.value)
    assert caught.type is error


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("507 Insufficient Storage", "disk usage quota of 90% is exceeded"),
        ("500 Internal Server Error", "No space left on device"),
        ("403 Forbidden", "Write access to collection tagbus-r1-tags is required"),
    ],
)
async def test_the_servers_words_on_a_full_disk_or_a_read_only_key_are_in_the_error(head: str, words: str) -> None:
    async with answering(head, words.encode()) as url:
        with pytest.raises(TagbusError, match=words):
            await ask(settings(url))


async def test_an_answer_that_is_none_of_qdrants_is_no_crash() -> None:
    async with answering("200 OK", b"<html>welcome</html>") as url:
        with pytest.raises(DependencyDown, match=f"Qdrant at {url} does not answer"):
            await ask(settings(url))


async def test_a_key_is_never_shown(recwarn: pytest.WarningsRecorder) -> None:
    secret = "s3cret"
    async with answering("400 Bad Request", b'{"status":{"error":"no"}}') as url:
        with pytest.raises((Fatal, DependencyDown)) as caught:
            await ask(settings(url, api_key=SecretStr(secret)))
        assert secret not in str(caught.value)
    assert [str(one.message) for one in recwarn if "nsecure" in str(one.message)] == []


async def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering("500 Internal Server Error", b"from the proxy") as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with pytest.raises(DependencyDown, match="does not answer") as caught:
            await ask(settings("http://qdrant.invalid:6333"))
    assert "from the proxy" not in str(caught.value)


@pytest.mark.parametrize(("host", "lines"), [("qdrant.example", 1), ("127.0.0.1", 0)])
async def test_a_key_without_tls_is_a_line_in_the_log(host: str, lines: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await connect(settings(f"http://{host}:6333", api_key=SecretStr("k"))).client.close()
    said = [one.getMessage() for one in caplog.records if "unencrypted" in one.getMessage()]
    assert (
        said
        == [
            f"http://{host}:6333: the key of TAGBUS_MEMORY__API_KEY goes over the network unencrypted; "
            "https protects it"
        ]
        * lines
    )


@pytest.mark.parametrize("url", ["", "somewhere", "ftp://host", "http://", "http://[::1", "http://host:port"])
def test_a_url_that_is_none_is_a_users_error(url: str) -> None:
    with pytest.raises(UserError, match=r"TAGBUS_MEMORY__URL is no address.*http://host:port"):
        connect(settings(url))


@pytest.mark.parametrize(("url", "usual"), [("https://qdrant.example", 443), ("http://qdrant.example", 80)])
def test_a_url_without_a_port_is_refused(url: str, usual: int) -> None:
    """The client would use 6333, while people mean the usual port."""
    with pytest.raises(
        UserError, match=f"names no port: expected :6333, which is Qdrant's own, or :{usual} for a proxy"
    ):
        connect(settings(url))


def made(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "client.pem", folder / "client.key"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-out",
            certificate,
            "-keyout",
            key,
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


async def test_a_server_with_its_own_authority_is_trusted_and_given_the_clients_certificate(tmp_path: Path) -> None:
    import asyncio
    import ssl

    certificate, key = made(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate)
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED
    shown: list[object] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown.append(writer.get_extra_info("peercert"))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 418 Teapot\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as listening:
        url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        with pytest.raises(Fatal, match="418"):
            await ask(settings(url, ca_file=certificate, certificate_file=certificate, key_file=key))
        with pytest.raises(DependencyDown, match="does not answer"):
            await ask(settings(url))
    assert [bool(one) for one in shown] == [True]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"ca_file": "absent.pem"}, r"TAGBUS_MEMORY__CA_FILE=absent.pem: no PEM of certificates: No such file"),
        ({"certificate_file": "absent.pem"}, r"TAGBUS_MEMORY__CERTIFICATE_FILE=absent.pem: no PEM .*No such file"),
        ({"key_file": "key.pem"}, r"TAGBUS_MEMORY__KEY_FILE is set without TAGBUS_MEMORY__CERTIFICATE_FILE"),
    ],
)
def test_certificates_that_cannot_be_read_are_named(files: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        connect(settings("https://qdrant.example:6333", **files))
