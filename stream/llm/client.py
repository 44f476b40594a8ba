"""Requests to the server: the meter admits each attempt, failures are retried within the content's deadline, and errors
classified.

The SDK sends them (its connections, its headers); its own retries are off, so that every attempt is counted and paid
for once. Its environment variables are ignored: address, key and organization come only from the settings.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

import httpx2
import openai
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from openai._types import RequestOptions
from pydantic import JsonValue

from tagbus.stream.config import RetrySettings
from tagbus.stream.errors import DependencyDown, Overloaded, TagbusError, UserError, Withheld, shorten
from tagbus.stream.llm.base import Charge, Meter, Usage
from tagbus.stream.llm.shapes import Malformed, Said, parsed
from tagbus.stream.llm.web.guarded import Guarded, Unreadable
from tagbus.stream.retry import backoff
from tagbus.stream.telemetry import LLM_CALLS, LLM_TOKENS, traces

log = logging.getLogger(__name__)

# Statuses worth a retry of the same request.
_OVERLOADED: Final = frozenset({408, 409, 425, 429, 503, 529})
# The server has no such endpoint, or no such model.
_ABSENT: Final = frozenset({404, 405, 501})
# Other requests pass: this one is too long, or the server refuses its form or content.
_REJECTED: Final = frozenset({400, 413, 422, 451})
# Waiting does not help: the account has no credit left.
_SPENT: Final = "insufficient_quota"
# The headers that are sent.
_SENT: Final = frozenset(
    {"host", "accept", "accept-encoding", "connection", "content-type", "content-length", "user-agent", "authorization"}
)
# How much of an error's body is shown.
_HEARD: Final = 300
# The longest answer is a list of models, of some 500 kB. 2 MB of empty choices take a second and 150 MB to parse.
ANSWER_BYTES: Final = 2_000_000
# Of a file with a batch's results.
FILE_BYTES: Final = 1_000_000_000
_FILE: Final = "/content"
_CONNECT_SECONDS: Final = 5.0
# No attempt is made with less time left: its error would mask the previous one.
_LEAST_SECONDS: Final = 0.1

# Used by every call; looked up once.
_ANSWERED: Final = LLM_CALLS.labels("answered")
_TOKENS: Final = tuple(map(LLM_TOKENS.labels, ("in", "out", "cached")))

Body = Mapping[str, JsonValue]
Call = Callable[[httpx2.Timeout], Awaitable[httpx2.Response]]


class NotServed(UserError):
    """The server has no such endpoint, or no such model."""


@dataclass(slots=True)
class Tally:
    """The usage of the calls for one content, and the model that their answers name."""

    usage: Usage = field(default_factory=Usage)
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The body of an answer; `rejected` is why the server refused this one request, None if it did not. `unread`: why
    the body was not read, and is empty."""

    body: bytes
    rejected: str | None = None
    unread: str | None = None


class Unlimited:
    """A meter that admits everything, for tests and the probe."""

    @asynccontextmanager
    async def attempt(self, estimate: Usage, deadline: float | None) -> AsyncIterator[Charge]:  # noqa: ARG002
        """See Meter."""
        yield self

    def settle(self, usage: Usage) -> None:
        """Do nothing."""


class Client:
    """One server. Belongs to one event loop."""

    def __init__(self, url: str, key: str | None, in_flight: int, meter: Meter, retry: RetrySettings) -> None:
        """`in_flight`: limit of concurrent requests; `key`: bearer token."""
        self.url = url
        self._meter = meter
        self._retry = retry
        self._slots = asyncio.Semaphore(in_flight)
        limits = httpx2.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
        network = httpx2.AsyncHTTPTransport(verify=_tls(), limits=limits, trust_env=False)
        sent = _SENT if key else _SENT - {"authorization"}

        async def strip(request: httpx2.Request) -> None:
            # The SDK adds headers about this machine, and any that OPENAI_CUSTOM_HEADERS names.
            raw = [(name, value) for name, value in request.headers.raw if name.lower().decode("latin-1") in sent]
            request.headers = httpx2.Headers(raw)

        # A redirect, or a proxy of the environment, would carry contents to an address that is not configured.
        http = DefaultAsyncHttpxClient(
            transport=Guarded(network, _most), trust_env=False, follow_redirects=False, event_hooks={"request": [strip]}
        )
        # The SDK requires a key.
        self._sdk = AsyncOpenAI(base_url=url, api_key=key or "none", max_retries=0, http_client=http)

    async def close(self) -> None:
        """Close the connections."""
        await self._sdk.close()

    async def get(self, path: str, deadline: float) -> Reply:
        """GET, not metered. Raises as `post` does."""
        return await self._send(path, deadline, lambda timeout: self._get(path, timeout))

    async def send(self, path: str, body: Body, deadline: float) -> Reply:
        """POST once, not metered: for requests other than questions to a model. Raises as `post` does."""
        return await self._send(path, deadline, lambda timeout: self._post(path, body, timeout))

    async def upload(self, path: str, file: Path, purpose: Literal["batch"], deadline: float) -> Reply:
        """POST a file once, as a form, not metered. Raises as `post` does."""

        async def call(timeout: httpx2.Timeout) -> httpx2.Response:
            sent = (file.name, await asyncio.to_thread(file.read_bytes), "application/jsonl")
            # The header makes the SDK send a form.
            options: RequestOptions = {"timeout": timeout, "headers": {"content-type": "multipart/form-data"}}
            body, files = {"purpose": purpose}, [("file", sent)]
            return await self._sdk.post(path, cast_to=httpx2.Response, body=body, files=files, options=options)

        return await self._send(path, deadline, call)

    async def post(self, path: str, body: Body, estimate: Usage, deadline: float, tally: Tally) -> Reply:
        """POST until answered; every attempt is settled and added to `tally` as its answer reports.

        `estimate`: upper limit of one attempt; its tokens count if an answer names none. Raises Overloaded or
        DependencyDown if `deadline` comes first, Withheld if the meter refuses, NotServed for a missing endpoint or
        model, UserError for a wrong key.
        """
        for delay in backoff(self._retry):
            try:
                return await self._attempt(path, body, estimate, deadline, tally)
            except DependencyDown as error:
                wait = delay
                if isinstance(error, Overloaded) and error.retry_after is not None:
                    wait = max(delay, error.retry_after)
                if isinstance(error.__cause__, _Spent) or time.monotonic() + wait + _LEAST_SECONDS >= deadline:
                    raise
                await asyncio.sleep(wait)
        raise AssertionError("backoff never ends")

    async def _attempt(self, path: str, body: Body, estimate: Usage, deadline: float, tally: Tally) -> Reply:
        await self._place(deadline)
        try:
            async with self._meter.attempt(estimate, deadline) as charge:
                tally.usage += Usage(calls=1)
                with _traced(path, body, self.url) as said:
                    try:
                        reply = await self.send(path, body, deadline)
                    except TagbusError as error:
                        if isinstance(error.__cause__, _Free):
                            charge.settle(Usage(1))
                        raise
                    usage = Usage() if reply.rejected else _usage(reply, estimate, tally)
                    said |= {
                        "gen_ai.usage.input_tokens": usage.tokens_in,
                        "gen_ai.usage.output_tokens": usage.tokens_out,
                    }
                    said |= {"gen_ai.response.model": tally.model} if tally.model else {}
                charge.settle(Usage(1) + usage)
                tally.usage += usage
                return reply
        finally:
            self._slots.release()

    async def _place(self, deadline: float) -> None:
        """Wait for a slot among the requests in flight. Raises Withheld if none is free before the deadline."""
        if not self._slots.locked():
            await self._slots.acquire()
            return
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await self._slots.acquire()
        except TimeoutError:
            raise Withheld("deadline", f"the deadline passed before a request to {self.url} could be sent") from None

    async def _send(self, path: str, deadline: float, call: Call) -> Reply:
        seconds = max(deadline - time.monotonic(), 0.001)
        # The whole call is bounded below, including slow trickles; httpx2 would set a timer for each read.
        timeout = httpx2.Timeout(None, connect=min(seconds, _CONNECT_SECONDS))
        try:
            async with asyncio.timeout(seconds):
                response = await call(timeout)
        except (TimeoutError, openai.APITimeoutError) as error:
            LLM_CALLS.labels("timeout").inc()
            raise Overloaded(f"{self.url} did not answer within {seconds:.1f} s") from error
        except openai.APIStatusError as error:
            return self._refused(path, error)
        except Unreadable as error:
            # The model has worked: the answer counts, and another would be no better.
            _ANSWERED.inc()
            log.warning("%s%s: %s", self.url, path, error)
            return Reply(b"", unread=str(error))
        except openai.APIConnectionError as error:
            LLM_CALLS.labels("connection").inc()
            why = shorten(str(error.__cause__ or error), 200)
            raise DependencyDown(f"{self.url}: the connection failed: {why}") from error
        _ANSWERED.inc()
        return Reply(response.content)

    async def _get(self, path: str, timeout: httpx2.Timeout) -> httpx2.Response:
        return await self._sdk.get(path, cast_to=httpx2.Response, options={"timeout": timeout})

    async def _post(self, path: str, body: Body, timeout: httpx2.Timeout) -> httpx2.Response:
        return await self._sdk.post(path, cast_to=httpx2.Response, body=body, options={"timeout": timeout})

    def _refused(self, path: str, error: openai.APIStatusError) -> Reply:
        """The reply, if only this request is refused. Raises otherwise."""
        status = error.status_code
        said = f"{self.url}{path} answered {status}: {shorten(error.response.text[:_HEARD], _HEARD)}"
        if status in _REJECTED:
            LLM_CALLS.labels("rejected").inc()
            return Reply(error.response.content, said)
        LLM_CALLS.labels("refused" if status < 500 and status not in _OVERLOADED else "overloaded").inc()
        free = _Free() if status < 500 or status in _OVERLOADED else None
        if status in {401, 403}:
            raise UserError(f"TAGBUS_LLM__API_KEY: {said}") from free
        if status in _ABSENT:
            raise NotServed(f"TAGBUS_LLM__URL, TAGBUS_LLM__MODEL: {said}") from free
        if status == 402 or (status == 429 and _SPENT in error.response.text):
            raise Overloaded(said) from _Spent()
        if status in _OVERLOADED:
            raise Overloaded(said, retry_after(error.response.headers)) from free
        if status >= 500:
            raise DependencyDown(said)
        raise UserError(f"TAGBUS_LLM__URL: {said}; expected the base URL of the API") from free


def _traced(path: str, body: Body, url: str) -> AbstractContextManager[dict[str, str | int | float]]:
    """A span by OpenTelemetry's GenAI conventions: names and counts, never prompt or answer."""
    operation = "chat" if path.endswith("completions") else path.rstrip("/").rpartition("/")[2]
    model = str(body.get("model", ""))
    where = urlsplit(url)
    attributes: dict[str, str | int | float] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": model,
        "server.address": where.hostname or "",
    }
    return traces.call(f"{operation} {model}".strip(), attributes)


def _usage(reply: Reply, estimate: Usage, tally: Tally) -> Usage:
    """The usage that an answer reports; the name of its model goes to `tally`."""
    try:
        said = parsed(Said, reply.body)
    except Malformed:
        said = Said()
    tally.model = said.model or tally.model
    usage = said.took(estimate)
    for counter, count in zip(_TOKENS, (usage.tokens_in, usage.tokens_out, usage.cached), strict=True):
        counter.inc(count)
    return usage


@cache
def _tls() -> ssl.SSLContext:
    """Shared, because reading the certificates of all authorities takes a while."""
    return httpx2.create_ssl_context()


def _most(request: httpx2.Request) -> int:
    return FILE_BYTES if request.url.path.endswith(_FILE) else ANSWER_BYTES


class _Free(Exception):
    """The cause of an error of a request that was refused: no model worked for it, so it costs nothing."""


class _Spent(_Free):
    """The cause of an Overloaded that outlasts this deadline."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The wait that an answer requests, in seconds, by `retry-after-ms` or `retry-after` (seconds or a date), None for
    none."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * scale
        except ValueError:
            continue
        return seconds if 0 <= seconds < float("inf") else None
    try:
        return max(0.0, parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
