"""Requests go to all the servers behind a name; one that comes gets its share, one that dies loses nothing."""

import asyncio
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from tagbus.stream.encoder import balance
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.release import default_folder
from tagbus.stream.encoder.triton import TritonEncoder
from tagbus.stream.errors import DependencyDown, UserError
from tagbus.stream.local.triton import TritonServer
from tests.triton.conftest import Open, Start
from tests.triton.harness import copy_repository, settings, texts_seen

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one process for the encoder, so that several servers fit on a small machine."""
    return copy_repository(tmp_path_factory.mktemp("small"), instances=1)


@pytest.fixture(scope="module")
def three(small: Path) -> Iterator[list[TritonServer]]:
    with ExitStack() as stack, ThreadPoolExecutor(3) as pool:
        servers = [TritonServer(small, host=host) for host in HOSTS]
        for server in servers:
            stack.callback(server.close)
        list(pool.map(TritonServer.start, servers))
        yield servers


class Name:
    """A name whose addresses a test changes, as a DNS server does."""

    def __init__(self, servers: list[TritonServer]) -> None:
        self.servers = servers

    async def __call__(self, address: str, setting: str) -> dict[str, str]:
        return {server.address: address for server in self.servers}


# No text comes twice: the encoder keeps the vectors of the last ones.
FRESH = count()


async def shares(encoder: TritonEncoder, servers: list[TritonServer], texts: int = 150) -> list[float]:
    """Of single texts, six at once, what each server got."""
    before = [texts_seen(server.address) for server in servers]
    gate = asyncio.Semaphore(6)

    async def one(number: int) -> None:
        async with gate:
            await encoder.encode([f"Tea, volume {number}"])

    await asyncio.gather(*(one(next(FRESH)) for _ in range(texts)))
    found = [texts_seen(server.address) - start for server, start in zip(servers, before, strict=True)]
    return [100 * one / sum(found) for one in found]


async def test_three_servers_share_the_requests(three: list[TritonServer], open_encoder: Open) -> None:
    encoder = await open_encoder(",".join(server.address for server in three))
    assert all(25 <= share <= 42 for share in await shares(encoder, three))


async def test_a_server_that_comes_gets_its_share_and_one_that_goes_gets_none(
    three: list[TritonServer], open_encoder: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert balance.RESOLVE_SECONDS < 60
    monkeypatch.setattr(balance, "RESOLVE_SECONDS", 0.05)
    name = Name(three[:2])
    encoder = await open_encoder("triton:8001", name)
    assert (await shares(encoder, three, 20))[2] == 0

    name.servers = three
    before = texts_seen(three[2].address)
    while texts_seen(three[2].address) == before:  # until it is asked for the golden texts
        await asyncio.sleep(0.02)
    # On a busy machine a server may be late once and have no turn for a moment.
    async with asyncio.timeout(120):
        while not all(25 <= share <= 42 for share in await shares(encoder, three)):
            await asyncio.sleep(0.02)

    name.servers = three[1:]
    await asyncio.sleep(0.2)
    assert (await shares(encoder, three, 20))[0] == 0


async def test_when_one_is_killed_the_others_take_over_and_it_comes_back(
    three: list[TritonServer], open_encoder: Open, in_process: OnnxEncoder
) -> None:
    encoder = await open_encoder(",".join(server.address for server in three))
    texts = [f"Fishing rights, volume {number}" for number in range(300)]
    call = asyncio.create_task(encoder.encode(texts))
    before = texts_seen(three[0].address)
    while texts_seen(three[0].address) == before:
        await asyncio.sleep(0.005)

    three[0].kill()

    np.testing.assert_allclose(await call, await in_process.encode(texts), atol=1e-5)
    assert (await shares(encoder, three[1:], 20)) != [0, 0]
    await asyncio.to_thread(three[0].restart)
    async with asyncio.timeout(120):
        while (await shares(encoder, three, 12))[0] == 0:
            await asyncio.sleep(0.05)


async def test_a_name_that_is_gone_for_a_while_changes_nothing(
    three: list[TritonServer], open_encoder: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(balance, "RESOLVE_SECONDS", 0.05)
    calls = 0

    async def find(address: str, setting: str) -> dict[str, str]:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise DependencyDown("encoder.address: 'triton': no such name")
        return {three[1].address: address}

    encoder = await open_encoder("triton:8001", find)
    while "the servers stay as they are" not in caplog.text:
        await asyncio.sleep(0.02)
    assert len(await encoder.encode(["Tea"])) == 1


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


async def test_tls_checks_the_certificate_by_the_name(
    small: Path, start: Start, open_encoder: Open, tmp_path: Path
) -> None:
    """The channel goes to an address, so that each server gets one: the name is what the certificate must have."""
    names = "subjectAltName=DNS:localhost"
    key = ["-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "ca.pem", "-days", "2"]
    openssl(tmp_path, "req", "-x509", *key, "-subj", "/CN=localhost", "-addext", names)
    ca = tmp_path / "ca.pem"
    options = (f"--grpc-server-cert={ca}", f"--grpc-server-key={tmp_path / 'key.pem'}", "--grpc-use-ssl=1")
    server = start(small, options=options)
    port = server.address.rpartition(":")[2]

    encoder = await open_encoder(f"localhost:{port}", tls=True, tls_ca=ca)
    assert len(await encoder.encode(["Tea"])) == 1

    for address, changes in (
        (server.address, {"tls": True, "tls_ca": ca}),  # not in the name of 127.0.0.1
        (f"localhost:{port}", {"tls": True}),  # not by an authority that the system knows
        (f"localhost:{port}", {}),
    ):
        with pytest.raises(DependencyDown, match="no Triton at"):
            await open_encoder(address, deadline_seconds=1, **changes)


async def test_a_tls_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.pem: No such file"):
        await TritonEncoder.open(
            default_folder(), settings("127.0.0.1:1", tls=True, tls_ca=tmp_path / "nowhere.pem", deadline_seconds=1)
        )
