"""A search endpoint: one request, an answer of bounded size, and a JMESPath over it.

Answers are untrusted: parsed as JSON within a byte limit, cut to the lengths that a prompt shows, and fenced when
rendered.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx2
import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import JsonValue

from tagbus.stream.config import WebSettings
from tagbus.stream.errors import DependencyDown, Overloaded, UserError, shorten
from tagbus.stream.llm.client import retry_after
from tagbus.stream.llm.prompts.prompt import SEGMENT, TITLE
from tagbus.stream.llm.web.guarded import Guarded, Unreadable

# Twice what a prompt shows: it drops unseen characters.
_TITLE: Final = 2 * TITLE
_TEXT: Final = 2 * SEGMENT


class Unusable(Exception):
    """An answer that is not a list of results. `reason` is a short word for metrics."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Result:
    """A result of a search, cut to length."""

    title: str
    text: str


class Endpoint:
    """The configured endpoint. One event loop."""

    def __init__(self, settings: WebSettings, url: str) -> None:
        """Nothing is sent yet. Raises UserError for an invalid JMESPath."""
        self._url = httpx2.URL(url)
        # For messages: the URL may contain a key.
        self.host = self._url.host
        self._settings = settings
        try:
            self._select = jmespath.compile(settings.select)
        except JMESPathError as error:
            said = " ".join(str(error).split())
            raise UserError(
                f"TAGBUS_WEB__SELECT={shorten(settings.select)}: expected a JMESPath: {shorten(said, 200)}"
            ) from None
        limits = httpx2.Limits(max_connections=settings.in_flight, max_keepalive_connections=settings.in_flight)
        network = httpx2.AsyncHTTPTransport(limits=limits, trust_env=False)
        # The environment is ignored, and a redirect would carry the query to an address that is not configured.
        self._http = httpx2.AsyncClient(
            transport=Guarded(network, lambda _: settings.bytes),
            headers={"accept": "application/json", **_authorization(settings)},
            follow_redirects=False,
            trust_env=False,
            # `search` bounds the whole call.
            timeout=None,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def search(self, query: str, seconds: float) -> tuple[Result, ...]:
        """The results, best first, as many as the settings want.

        Raises Overloaded if none arrive in time, DependencyDown if the endpoint fails, Unusable for anything but a list
        of results.
        """
        try:
            async with asyncio.timeout(seconds):
                body = await self._body(query)
        except TimeoutError as error:
            raise Overloaded(f"{self.host} did not answer within {seconds:.1f} s") from error
        except Unreadable as error:
            raise Unusable(error.reason, str(error)) from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise DependencyDown(f"{self.host}: the connection failed: {shorten(str(error), 200)}") from error
        return self._results(body)

    async def _body(self, query: str) -> bytes:
        settings = self._settings
        asked = {settings.query: query}
        if settings.method == "get":
            request = self._http.build_request("GET", self._url.copy_merge_params(asked))
        else:
            request = self._http.build_request("POST", self._url, json=asked)
        response = await self._http.send(request)
        if response.status_code in {408, 425, 429, 503}:
            raise Overloaded(f"{self.host} answered {response.status_code}", retry_after(response.headers))
        if response.status_code != 200:
            raise DependencyDown(f"{self.host} answered {response.status_code}")
        return response.content

    def _results(self, body: bytes) -> tuple[Result, ...]:
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Unusable("malformed", f"the answer is not JSON: {shorten(str(error), 100)}") from None
        try:
            found = self._select.search(answer)
        except Exception as error:
            # Besides its own errors, jmespath raises TypeError where it compares a text with a number, and others.
            said = " ".join(str(error).split()) if isinstance(error, JMESPathError) else type(error).__name__
            raise Unusable("malformed", f"TAGBUS_WEB__SELECT does not fit the answer: {shorten(said, 100)}") from None
        if not isinstance(found, list):
            raise Unusable("malformed", "TAGBUS_WEB__SELECT finds no list in the answer")
        results = [one for one in map(_result, found) if one is not None]
        if found and not results:
            raise Unusable("malformed", "TAGBUS_WEB__SELECT finds neither texts nor objects with text")
        return tuple(results[: self._settings.segments])


def _result(value: JsonValue) -> Result | None:
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, Mapping):
        return None
    title, text = value.get("title"), value.get("text")
    if not isinstance(text, str) or not text.strip():
        return None
    return Result(title[:_TITLE] if isinstance(title, str) else "", text[:_TEXT])


def _authorization(settings: WebSettings) -> dict[str, str]:
    if settings.api_key is None:
        return {}
    key, name = settings.api_key.get_secret_value(), settings.key_header.lower()
    return {name: f"Bearer {key}" if name == "authorization" else key}
