"""Client of a server's batch API: upload files, create batches, find them again and read results. No automatic
resends."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

from pydantic import JsonValue

from tagbus.stream.config import RetrySettings
from tagbus.stream.errors import DependencyDown, UserError
from tagbus.stream.llm.batch.forms import ENDPOINT, WINDOW, Batch, Batches, FileObject
from tagbus.stream.llm.client import Client, NotServed, Reply
from tagbus.stream.llm.shapes import Malformed, Shape, parsed
from tagbus.stream.retry import backoff

T = TypeVar("T")
M = TypeVar("M", bound=Shape)

# Timeouts of a small request, and of a file of 50 MB.
SECONDS: Final = 60.0
FILE_SECONDS: Final = 600.0
# How long a server may be down before the command ends; a later call resumes.
PATIENCE_SECONDS: Final = 300.0
PAGE: Final = 100
# Pages searched for a batch of ours.
PAGES: Final = 50


class BatchApi:
    """One server. Raises DependencyDown if it does not answer, UserError if it has no batches or refuses one."""

    def __init__(self, client: Client, retry: RetrySettings, patience: float = PATIENCE_SECONDS) -> None:
        self._client = client
        self._retry = retry
        self._patience = patience

    async def upload(self, file: Path) -> str:
        """Upload a file of requests; returns its id. Another upload of the same is another file, at no cost."""

        async def call() -> str:
            reply = await self._client.upload("/files", file, "batch", _until(FILE_SECONDS))
            return _read(FileObject, reply).id

        return await self._patiently(call)

    async def create(self, file_id: str, run: str, part: str) -> Batch:
        """Create a batch of a file, identified by `run` and `part`; created once even if answers are lost."""

        async def call() -> Batch:
            # A lost answer may hide a batch that was created.
            if (found := await self.find(run, part)) is not None:
                return found
            body: dict[str, JsonValue] = {
                "input_file_id": file_id,
                "endpoint": ENDPOINT,
                "completion_window": WINDOW,
                "metadata": {"tagbus": run, "part": part},
            }
            return _read(Batch, await self._client.send("/batches", body, _until(SECONDS)))

        return await self._patiently(call)

    async def find(self, run: str, part: str) -> Batch | None:
        """The batch created under these names; None if there is none."""
        path = f"/batches?limit={PAGE}"
        for _ in range(PAGES):
            page = _read(Batches, await self._client.get(path, _until(SECONDS)))
            for one in page.data:
                if one.metadata and (one.metadata.get("tagbus"), one.metadata.get("part")) == (run, part):
                    return one
            if not page.has_more or not page.data:
                return None
            path = f"/batches?limit={PAGE}&after={page.data[-1].id}"
        return None

    async def get(self, batch_id: str) -> Batch:
        """The state of a batch."""

        async def call() -> Batch:
            return _read(Batch, await self._client.get(f"/batches/{batch_id}", _until(SECONDS)))

        return await self._patiently(call)

    async def content(self, file_id: str) -> bytes:
        """Read a file of results."""

        async def call() -> bytes:
            reply = await self._client.get(f"/files/{file_id}/content", _until(FILE_SECONDS))
            if reply.unread:
                # The answers are paid for: an empty file would count them as missing.
                raise UserError(f"the results of the batch in file {file_id} cannot be read: {reply.unread}")
            return _accepted(reply).body

        return await self._patiently(call)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        until = _until(self._patience)
        for wait in backoff(self._retry):
            try:
                return await call()
            except DependencyDown:
                if time.monotonic() + wait >= until:
                    raise
                await asyncio.sleep(wait)
            except NotServed as error:
                raise UserError(f"the server has no batch API: {error}") from None
        raise AssertionError("backoff never ends")


def _until(seconds: float) -> float:
    return time.monotonic() + seconds


def _accepted(reply: Reply) -> Reply:
    if reply.rejected:
        raise UserError(f"the batch API refuses: {reply.rejected}")
    return reply


def _read(shape: type[M], reply: Reply) -> M:
    try:
        return parsed(shape, _accepted(reply).body)
    except Malformed as error:
        raise DependencyDown(f"the batch API's answer is not of OpenAI's form: {error}") from None
