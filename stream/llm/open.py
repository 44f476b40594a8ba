"""Open a judge from the settings. The server is probed on first use, so a worker starts while it is down."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from tagbus.stream.config import LlmSettings, RetrySettings
from tagbus.stream.errors import Retryable, UserError, Withheld
from tagbus.stream.llm.base import Asked, Judge, Judged, Meter, Usage
from tagbus.stream.llm.choose import KNOWN, choose, listed
from tagbus.stream.llm.client import Client, NotServed
from tagbus.stream.llm.judge import Asking, LlmJudge, Server
from tagbus.stream.llm.likelihood import Likelihood, require_canonical
from tagbus.stream.llm.profile import profile
from tagbus.stream.llm.prompts import Prompts
from tagbus.stream.llm.select import Selecting
from tagbus.stream.llm.shapes import UNASKED, unknown
from tagbus.stream.llm.watch import Watch

# Probing a server takes a few calls, and the first one may load the model.
LOOK_SECONDS: Final = 60.0
# After a server that cannot judge, or a key that it refuses.
AGAIN_SECONDS: Final = 60.0


def open_judge(settings: LlmSettings, retry: RetrySettings, meter: Meter) -> Judge:
    """The judge of the settings. Raises UserError for settings that do not fit."""
    return LazyJudge(settings, connected(settings, retry, meter), prompts_of(settings), meter)


def prompts_of(settings: LlmSettings) -> Prompts:
    """The prompts of the settings. Raises UserError."""
    return Prompts(settings.prompt, settings.prompt_tokens, settings.metadata, settings.exemplars)


def connected(settings: LlmSettings, retry: RetrySettings, meter: Meter) -> Server:
    """A client of the configured server; nothing is sent yet. Raises UserError."""
    if settings.url is None:
        raise UserError("TAGBUS_LLM__URL is not set: expected the base URL of the server, such as http://host:8000/v1")
    found = profile(settings.profile)
    if settings.adapter and found.adapter == "none":
        raise UserError(f"TAGBUS_LLM__ADAPTER={settings.adapter}: profile {found.name} has no adapters, expected none")
    if settings.adapter and found.adapter == "lora_id" and not settings.adapter.isdecimal():
        raise UserError(
            f"TAGBUS_LLM__ADAPTER={settings.adapter}: {found.name} numbers its adapters, expected 0, 1, ..."
        )
    key = settings.api_key.get_secret_value() if settings.api_key else None
    client = Client(settings.url, key, settings.in_flight, meter, retry)
    return Server(client, found, settings.model, settings.adapter, settings.label_mass)


async def named(server: Server, deadline: float) -> Server:
    """The server with its model: the configured one, or the first that it lists. Raises as Client.get does."""
    if server.model is not None:
        return server
    models = await listed(server, deadline)
    return Server(server.client, server.profile, models[0] if models else None, server.adapter, server.label_mass)


async def chosen(server: Server, prompts: Prompts, settings: LlmSettings, deadline: float) -> Asking:
    """The configured backend, as far as the server supports it. Raises as `choose` does."""
    if settings.select == "tokens":
        await require_canonical(server, prompts.render(KNOWN, 200), deadline)
        return Likelihood(server, prompts)
    return (await choose(server, prompts, settings, deadline)).asking


class LazyJudge:
    """A judge that probes its server on first use."""

    def __init__(self, settings: LlmSettings, server: Server, prompts: Prompts, meter: Meter) -> None:
        self._settings = settings
        self._server = server
        self._prompts = prompts
        self._meter = meter
        # The server with its model, once that is known.
        self._named: Server | None = None
        self._lock = asyncio.Lock()
        self._judge: LlmJudge | None = None
        self._watch = Watch(settings.watch_seconds)
        self._looking: asyncio.Task[None] | None = None
        self._refused: tuple[float, UserError | None] = (0.0, None)

    async def judge(self, asked: Sequence[Asked]) -> list[Judged]:
        """See Judge."""
        try:
            judge = await self._opened(asked)
        except Retryable as error:
            return [
                Judged(tuple(unknown(UNASKED, len(one.questions))), None, self._prompts.version, failure=error)
                for one in asked
            ]
        if self._watch.due():
            self._looking = asyncio.create_task(self._look_for_change(judge))
        try:
            return await judge.judge(asked)
        except NotServed:
            # Another server, or another version of it, is at the address now: probe it again.
            self._judge = self._named = None
            raise

    async def close(self) -> None:
        """See Judge."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        await self._server.client.close()

    async def _opened(self, asked: Sequence[Asked]) -> LlmJudge:
        if self._judge is not None:
            return self._judge
        # The contents' own deadlines count here too: others wait behind them.
        own = time.monotonic() + min(LOOK_SECONDS, self._settings.deadline_seconds)
        deadline = min([own, *(one.deadline for one in asked if one.deadline is not None)])
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await self._lock.acquire()
        except TimeoutError:
            raise Withheld("deadline", f"{self._settings.url} was still being probed at the deadline") from None
        try:
            if self._judge is None:
                self._judge = await self._look(deadline)
            return self._judge
        finally:
            self._lock.release()

    async def _look_for_change(self, judge: LlmJudge) -> None:
        # Concurrent with the contents, which do not wait for it and see the server's faults themselves.
        with suppress(UserError):
            await self._watch.look(judge)

    async def _look(self, deadline: float) -> LlmJudge:
        """Find out which backend the server supports. Raises the same UserError for a while: each probe costs calls."""
        since, refusal = self._refused
        if refusal is not None and time.monotonic() - since < AGAIN_SECONDS:
            raise refusal
        try:
            server = self._named = self._named or await self._name(deadline)
            asking = await chosen(server, self._prompts, self._settings, deadline)
        except UserError as error:
            self._named = None
            self._refused = (time.monotonic(), error)
            raise
        selector = Selecting(server, self._prompts) if self._settings.select == "labels" else None
        return LlmJudge(asking, self._prompts, self._settings, selector)

    async def _name(self, deadline: float) -> Server:
        """As `named`, through the meter: a server that answers no list either opens the breaker."""
        if self._server.model is not None:
            return self._server
        async with self._meter.attempt(Usage(), deadline) as charge:
            server = await named(self._server, deadline)
            charge.settle(Usage())
        return server
