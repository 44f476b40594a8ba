"""A batch about a few contents, carried to a server and back."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tagbus.stream.config import BudgetSettings, LlmSettings
from tagbus.stream.contract.events import Content
from tagbus.stream.llm.base import Asked, Question
from tagbus.stream.llm.batch.answers import Filed, Given, digest_of
from tagbus.stream.llm.batch.api import BatchApi
from tagbus.stream.llm.batch.asking import Batching, Writer, asking_of
from tagbus.stream.llm.batch.carry import Carrier
from tagbus.stream.llm.batch.folder import Folder
from tagbus.stream.llm.client import Unlimited
from tagbus.stream.llm.open import connected, prompts_of
from tagbus.stream.llm.spending.batches import BatchSpending
from tagbus.stream.llm.spending.prices import price_by
from tests.llm.asking import QUICK
from tests.llm.scripted import Server
from tests.llm.test_budget import Topic, TopicLedger

CONTENTS = [Content(id=f"c{number}", title=f"A title {number}") for number in range(4)]
TAGS = ("Cats", "Nuclear")
PRICES = {"price_in": 2.0, "price_out": 8.0}


def asked(content: Content, tags: Sequence[str] = TAGS) -> Asked:
    return Asked(content, tuple(Question(tag.lower(), tag) for tag in tags))


@asynccontextmanager
async def carrying(
    server: Server,
    path: Path,
    topic: Topic | None = None,
    contents: Sequence[Content] = CONTENTS,
    unasked: Callable[[Content], bool] = lambda _: False,
    budget: dict[str, float] | None = None,
    patience: float = 30.0,
    **given: object,
) -> AsyncIterator[Carrier]:
    """The carrier of a batch about these contents, or of the batch that the folder has."""
    settings = LlmSettings(
        url=server.url, **{"model": "m", "backend": "yesno", "api_key": "k", "profile": "generic", **given}
    )
    limits = BudgetSettings(**{**PRICES, **(budget or {})})
    prompts, at = prompts_of(settings), connected(settings, QUICK, Unlimited())
    ledger = TopicLedger(topic or Topic(), "batch")
    spending = BatchSpending(limits, ("g", "batch"), ledger, price_by(limits, server.url), "m")
    batching = Batching(asking_of(settings, at, prompts), prompts, spending, "judge-1")
    try:
        with Folder(path) as folder:
            job = folder.job("judge-1", "test")
            if job is None:
                writer = Writer(folder, batching)
                for content in contents:
                    writer.add(content, None if unasked(content) else asked(content))
                job = writer.close("test")
            yield Carrier(folder, job, BatchApi(at.client, QUICK, patience), batching, 0.01, lambda _: None)
            await spending.close()
    finally:
        await at.client.close()


def given(path: Path, content: Content) -> Given | None:
    filed = Filed(path / "answers.jsonl")
    try:
        return filed.look(digest_of("judge-1", content))
    finally:
        filed.close()


async def carried(server: Server, path: Path, **more: object) -> None:
    async with carrying(server, path, **more) as carrier:
        await carrier.run()
