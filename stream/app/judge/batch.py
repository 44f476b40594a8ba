"""Ask the judge about many contents through the server's batch API: requests from a worker's memory, polling for the
answers, and accounting."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from tagbus.stream.app import console
from tagbus.stream.app.assemble import Plan
from tagbus.stream.app.explain.worker import as_worker
from tagbus.stream.app.places import files
from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Content
from tagbus.stream.errors import UserError
from tagbus.stream.llm.batch.answers import Filed, digest_of
from tagbus.stream.llm.batch.api import BatchApi
from tagbus.stream.llm.batch.asking import Batching, Writer, asking_of
from tagbus.stream.llm.batch.carry import Carrier
from tagbus.stream.llm.batch.folder import Folder, Job
from tagbus.stream.llm.client import Unlimited
from tagbus.stream.llm.component import version_of
from tagbus.stream.llm.open import connected, prompts_of
from tagbus.stream.llm.spending import ledger
from tagbus.stream.llm.spending.batches import BatchSpending
from tagbus.stream.llm.spending.budget import Ledger, NoLedger
from tagbus.stream.llm.spending.prices import price_by
from tagbus.stream.memory.kinds import KNOWLEDGE
from tagbus.stream.tagger.judge import JudgeStage
from tagbus.stream.tagger.tagger import Explained, Tagger

# Contents whose prompts are built together.
CHUNK: Final = 256

PLAN: Final = Plan(reads=frozenset({KNOWLEDGE.name}))
# Opens the contents to ask about.
Selected = Callable[[], Iterator[Content]]


@dataclass(frozen=True, slots=True)
class Errand:
    """The purpose of a batch. `about`: the selection of contents, verbatim as on the command line; `every`: seconds
    between polls; `cache`: folder with embeddings of an earlier run."""

    folder: Path
    about: str
    contents: Selected
    every: float
    cache: Path | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """An answered batch, by the judge of its job's version."""

    job: Job
    answers: Filed
    folder: Folder

    def digest(self, content: Content) -> str:
        """The digest by which its answers identify a content."""
        return digest_of(self.job.version, content)

    def concerned(self) -> frozenset[str]:
        """Digests of all its contents, answered or not."""
        parts = range(self.job.parts)
        return frozenset(line.digest for number in parts for line in self.folder.lines(number))


def key_of(settings: Settings) -> str:
    """The key that signs headers. Raises UserError if there is none."""
    if settings.llm.url is None:
        raise UserError("TAGBUS_LLM__URL is not set, so there is no server to send a batch to")
    if settings.llm.api_key is None:
        raise UserError(
            "TAGBUS_LLM__API_KEY is not set: answers of a batch are signed with it; expected the workers' key"
        )
    return settings.llm.api_key.get_secret_value()


async def carried(settings: Settings, folder: Folder, errand: Errand) -> Done:
    """Submit a batch and wait for the answers; resume if the folder already holds one.

    Raises UserError for settings that a batch cannot honour or if the folder holds another batch, as `as_worker` does
    if nothing is submitted yet, DependencyDown if the server does not answer.
    """
    key_of(settings)
    version = version_of(settings)
    async with _batching(settings, folder, version) as (api, batching):
        job = folder.job(version, errand.about)
        if job is None:
            job = await _ask(settings, folder, errand, batching)
        else:
            console.say(f"resuming the batch in {errand.folder}: {job.contents} contents")
        if not folder.answers.exists():
            await Carrier(folder, job, api, batching, errand.every, console.say).run()
    return Done(job, Filed(folder.answers), folder)


@asynccontextmanager
async def _batching(settings: Settings, folder: Folder, version: str) -> AsyncIterator[tuple[BatchApi, Batching]]:
    """The batch API, and how requests are made for it. Raises UserError."""
    prompts = prompts_of(settings.llm)
    server = connected(settings.llm, settings.retry, Unlimited())
    async with AsyncExitStack() as exits:
        exits.push_async_callback(server.client.close)
        asking = asking_of(settings.llm, server, prompts)
        kept: Ledger = NoLedger()
        # Each worker of the group has its own records, and so does each folder: a run that resumes it finds them.
        place = hashlib.sha256(str(folder.path.resolve()).encode()).hexdigest()[:8]
        kafka = settings.kafka.model_copy(update={"instance": f"{settings.kafka.instance}-batch-{place}"})
        if settings.budget.limited:
            kept = await exits.enter_async_context(ledger.opened(settings.model_copy(update={"kafka": kafka})))
        price = price_by(settings.budget, settings.llm.url or "")
        owner = (kafka.group, kafka.instance)
        spending = BatchSpending(settings.budget, owner, kept, price, settings.llm.model)
        exits.push_async_callback(spending.close)
        yield BatchApi(server.client, settings.retry), Batching(asking, prompts, spending, version)


async def _ask(settings: Settings, folder: Folder, errand: Errand, batching: Batching) -> Job:
    """Write all requests."""
    writer = Writer(folder, batching)
    asked = 0
    async with as_worker(settings, errand.cache, PLAN) as (stack, tagger):
        if version_of(stack.settings) != batching.version:
            raise UserError("these settings have another judge than the release in force, expected its workers' ones")
        stage, before = _stage(tagger)
        async for chunk in _chunks(errand.contents()):
            outcomes = await tagger.explain(chunk, until=before)
            works = [one.work for one in outcomes if isinstance(one, Explained)]
            prepared = iter(await stage.to_prepare(works))
            for content, one in zip(chunk, outcomes, strict=True):
                # A content that cannot be tagged, or not yet, is left to the workers.
                found = next(prepared) if isinstance(one, Explained) else None
                asked += found is not None
                writer.add(content, found)
    job = writer.close(errand.about)
    console.say(f"{asked} of {job.contents} contents are asked about, in {job.parts} parts")
    return job


def _stage(tagger: Tagger) -> tuple[JudgeStage, str]:
    """The judge stage, and the name of the stage before it."""
    for before, stage in pairwise(tagger.stages):
        if isinstance(stage, JudgeStage):
            return stage, before.name
    raise AssertionError("a server is set, so there is a judge")


async def _chunks(contents: Iterable[Content]) -> AsyncIterator[list[Content]]:
    """Read off the event loop, which memory needs to follow its topics. One thread, because the reader is bound to
    one."""
    chunks = iter(files.chunks(contents, CHUNK))
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, thread_name_prefix="contents") as thread:
        while (chunk := await loop.run_in_executor(thread, next, chunks, None)) is not None:
            yield list(chunk)
