"""The HTTP API. Any replica answers any key: one that does not own it forwards the request to the owner."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final, get_args

from aiohttp import ClientError, ClientSession, ClientTimeout, web
from pydantic_core import to_json
from yarl import URL

from tagbus.stream import telemetry
from tagbus.stream.config import ViewsSettings
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.views import answers
from tagbus.stream.views.answers import MOST, PAGE, Answer, Order
from tagbus.stream.views.application import Views
from tagbus.stream.views.contents import ContentRow
from tagbus.stream.views.openapi import document
from tagbus.stream.views.tags import TagRow
from tagbus.stream.views.transport import ConfirmedTable

log = logging.getLogger(__name__)

# Marks a forwarded request: it is answered here or not at all.
ROUTED: Final = "tagbus-views-routed"
SECONDS: Final = 10.0
# An id in a path. aiohttp's own pattern excludes braces.
ID: Final = "{id:[^/]+}"
Make = Callable[[str, bytes, Mapping[str, str]], Answer | None]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """Serves until closed. Raises UserError if the address cannot be bound."""

    def __init__(self, views: Views, settings: ViewsSettings) -> None:
        self._views, self._settings = views, settings
        self._session: ClientSession | None = None
        app = web.Application(middlewares=[_told])
        app.add_routes(
            [
                web.get(f"/contents/{ID}", self._route(views.contents, self._content)),
                web.get(f"/tags/{ID}", self._route(views.tags, self._tag)),
                web.get(f"/tags/{ID}/contents", self._route(views.tags, self._contents)),
                web.get(f"/tags/{ID}/windows", self._route(views.tags, self._windows)),
                web.get(f"/tags/{ID}/together", self._route(views.tags, self._together)),
                web.get("/openapi.json", _openapi),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)

    async def start(self) -> None:
        """Listen."""
        own = self._settings
        self._session = ClientSession(timeout=ClientTimeout(total=SECONDS), trust_env=False)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, own.host, own.port).start()
        except OSError as error:
            await self.close()
            words = f"TAGBUS_VIEWS__HOST={own.host} TAGBUS_VIEWS__PORT={own.port}: {error.strerror}"
            raise UserError(f"{words}; choose another port") from None
        log.info("views: the API is on %s, its document at /openapi.json", own.url)

    async def close(self) -> None:
        """Stop serving."""
        await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    def _route(self, table: ConfirmedTable, make: Make) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            key = request.match_info["id"]
            owner = self._views.owner(table, key.encode())
            if owner is None:
                return _later()
            if owner != URL(self._settings.url):
                return _later() if ROUTED in request.headers else await self._ask(owner, request)
            if not self._views.settled:
                return _later()
            stored = table.get(key.encode())
            answer = None if stored is None else make(key, stored, request.query)
            if answer is None:
                return _error(HTTPStatus.NOT_FOUND, f"id: {shorten(key)} is not known here")
            return web.json_response(body=answer.model_dump_json().encode())

        return handle

    async def _ask(self, owner: URL, request: web.Request) -> web.StreamResponse:
        if self._session is None:
            return _later()
        target = URL(str(owner).rstrip("/") + request.rel_url.raw_path_qs, encoded=True)
        try:
            async with self._session.get(target, headers={ROUTED: "1"}, allow_redirects=False) as found:
                body = await found.read()
                headers = {name: found.headers[name] for name in ("Retry-After",) if name in found.headers}
                return web.Response(body=body, status=found.status, content_type=found.content_type, headers=headers)
        except (ClientError, TimeoutError, OSError):
            return _later()

    def _content(self, key: str, stored: bytes, _: Mapping[str, str]) -> Answer | None:
        latest = ContentRow.model_validate_json(stored).latest
        return None if latest is None else answers.content(key, latest)

    def _tag(self, key: str, stored: bytes, _: Mapping[str, str]) -> Answer:
        return answers.tag(key, TagRow.model_validate_json(stored))

    def _contents(self, _: str, stored: bytes, asked: Mapping[str, str]) -> Answer:
        order = _order(asked.get("order", "newest"))
        row = TagRow.model_validate_json(stored)
        return answers.contents(row, order, self._settings.contents, _limit(asked), asked.get("after"))

    def _windows(self, _: str, stored: bytes, asked: Mapping[str, str]) -> Answer:
        seconds = _whole("seconds", asked.get("seconds"), min(self._settings.window_seconds))
        row = TagRow.model_validate_json(stored)
        return answers.windows(row, self._settings, seconds, time.time(), _limit(asked), asked.get("after"))

    def _together(self, _: str, stored: bytes, asked: Mapping[str, str]) -> Answer:
        return answers.together(TagRow.model_validate_json(stored), _limit(asked), asked.get("after"))


@web.middleware
async def _told(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Counts answers, and formats errors as documented."""
    started = time.monotonic()
    try:
        found = await handler(request)
    except UserError as error:
        found = _error(HTTPStatus.BAD_REQUEST, str(error))
    except web.HTTPException as error:
        found = _error(HTTPStatus(error.status), "GET, and the paths of /openapi.json")
    except Exception:
        log.exception("views: no answer")
        found = _error(HTTPStatus.INTERNAL_SERVER_ERROR, "a bug; the log has it")
    found.headers["Server"] = "tagbus"
    telemetry.VIEWS_REQUESTS.labels(str(found.status)).inc()
    telemetry.VIEWS_SECONDS.observe(time.monotonic() - started)
    return found


async def _openapi(_: web.Request) -> web.StreamResponse:
    return web.json_response(body=to_json(document()))


def _limit(asked: Mapping[str, str]) -> int:
    found = _whole("limit", asked.get("limit"), PAGE)
    if not 1 <= found <= MOST:
        raise UserError(f"limit: {found} is wrong, expected 1 to {MOST}")
    return found


def _whole(name: str, text: str | None, otherwise: int) -> int:
    if text is None:
        return otherwise
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UserError(f"{name}: {shorten(text)} is wrong, expected a whole number")
    return int(text)


def _order(text: str) -> Order:
    for known in get_args(Order):
        if text == known:
            return known  # type: ignore[no-any-return]
    raise UserError(f"order: {shorten(text)} is wrong, expected {' or '.join(get_args(Order))}")


def _later() -> web.Response:
    answer = _error(HTTPStatus.SERVICE_UNAVAILABLE, "the replica that has this id is being replaced")
    answer.headers["Retry-After"] = "1"
    return answer


def _error(status: HTTPStatus, words: str) -> web.Response:
    return web.json_response({"error": words}, status=status)
