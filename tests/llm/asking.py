"""Shared by the tests of the judge: contents to ask about, and a judge at a server."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tagbus.stream.config import LlmSettings, RetrySettings
from tagbus.stream.contract.events import Content
from tagbus.stream.llm.base import Asked, Backend, Judge, Meter, Question
from tagbus.stream.llm.client import Unlimited
from tagbus.stream.llm.decisions import CONTRACTS
from tagbus.stream.llm.judge import Asking, Decisions, LlmJudge, Stated, YesNo
from tagbus.stream.llm.open import connected, open_judge, prompts_of

QUICK = RetrySettings(first_seconds=0.01, cap_seconds=0.02)


def asked(*names: str, text: str = "Some text.", seconds: float = 60, content_id: str = "c1") -> Asked:
    """A content and tags of these names, whose ids are the names."""
    content = Content(id=content_id, title="A title", text=text)
    return Asked(content, tuple(Question(name, name) for name in names), deadline=time.monotonic() + seconds)


@asynccontextmanager
async def judging(url: str, meter: Meter | None = None, **settings: object) -> AsyncIterator[Judge]:
    """A judge at that server."""
    judge = open_judge(
        LlmSettings(url=url, **{"model": "test-model", "watch_seconds": 0, **settings}), QUICK, meter or Unlimited()
    )
    try:
        yield judge
    finally:
        await judge.close()


@asynccontextmanager
async def directly(url: str, backend: Backend, meter: Meter | None = None, **given: object) -> AsyncIterator[Judge]:
    """A judge with that backend and without a probe: every request of the server is the test's."""
    settings = LlmSettings(url=url, **{"model": "test-model", **given})
    server = connected(settings, QUICK, meter or Unlimited())
    prompts = prompts_of(settings)
    ways: dict[Backend, Asking] = {
        "decision_api": Decisions(server, prompts, CONTRACTS[server.profile.decisions[0]]),
        "yesno": YesNo(server, prompts),
        "stated": Stated(server, prompts),
    }
    try:
        yield LlmJudge(ways[backend], prompts, settings)
    finally:
        await server.client.close()
