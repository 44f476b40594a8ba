"""The API without Kafka: every id has its paths, and what is no HTTP costs no line in the log."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from aiohttp import ClientSession
from yarl import URL

from tagbus.stream.cli.views import REQUESTS
from tagbus.stream.config import Settings, ViewsSettings
from tagbus.stream.local.child import free_ports
from tagbus.stream.views.api import Api
from tagbus.stream.views.application import Views
from tagbus.stream.views.contents import ContentRow, Latest, Mark, Version
from tagbus.stream.views.openapi import PATHS
from tagbus.stream.views.tags import TagRow

IDS = ["{x}", "{", "}", "{id}", "{id:[^/]+}", "a/b", "a b é", "%7Bx%7D", "..", "a?b#c"]


@pytest.fixture
async def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """Of an API whose tables hold a row for each of these ids."""
    (port,) = free_ports(1)
    own = ViewsSettings(port=port)
    views = Views(Settings(views=own), tmp_path, partitions=1)
    monkeypatch.setattr(Views, "settled", True)
    monkeypatch.setattr(views, "owner", lambda *_: URL(own.url))
    mark = Mark(id="t", name="T", confidence=0.5)
    latest = Latest(tags=(mark,), release="r", time=0, tagged=1)
    content = ContentRow(versions=(Version(offset=1, latest=latest),)).to_json()
    tag = TagRow(name="T", count=1).to_json()
    monkeypatch.setattr(views.contents, "get", {one.encode(): content for one in IDS}.get)
    monkeypatch.setattr(views.tags, "get", {one.encode(): tag for one in IDS}.get)
    api = Api(views, own)
    await api.start()
    try:
        yield port
    finally:
        await api.close()


@pytest.mark.parametrize("path", PATHS)
async def test_every_id_has_every_path_of_the_document(port: int, path: str) -> None:
    async with ClientSession() as session:
        for one in IDS:
            asked = path.replace("{id}", quote(one, safe=""))
            url = URL(f"http://127.0.0.1:{port}{asked}", encoded=True)
            async with session.get(url) as answer:
                assert answer.status == 200, one
                assert (await answer.json()).get("id", one) == one


@pytest.mark.parametrize("path", ["/contents/", "/contents/a/b", "/tags//contents", "/tags/a/b/contents"])
async def test_a_slash_is_no_part_of_an_id(port: int, path: str) -> None:
    async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        assert answer.status == 404


@pytest.fixture
def as_served() -> Iterator[None]:
    """The logger of requests as `tagbus views` sets it."""
    logger = logging.getLogger(REQUESTS)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.mark.usefixtures("as_served")
async def test_a_malformed_request_leaves_no_line_in_the_log(port: int, caplog: pytest.LogCaptureFixture) -> None:
    for line in (b"GET /contents/CANARY secret text HTTP/1.1", b"\x16\x03\x01\x00", b"GET / HTTP/9.9"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(line + b"\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.0 400")
        writer.close()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
