"""The batch API of a server: files in, batches made, found again and read. Nothing here is sent twice by itself."""

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

# Of a small request, and of a file of 50 MB.
SECONDS: Final = 60.0
FILE_SECONDS: Final = 600.0
# How long a server may be away before the command ends; it goes on when it is called again.
PATIENCE_SECONDS: Final = 300.0
PAGE: Final = 100
# Pages that are looked through for a batch of ours.
PAGES: Final = 50


class BatchApi:
    """One server. Raises DependencyDown where it does not answer, UserError where it has no batches or refuses one."""

    def __init__(self, client: Client, retry: RetrySettings, patience: float = PATIENCE_SECONDS) -> None:
        self._client = client
        self._retry = retry
        self._patience = patience

    async def upload(self, file: Path) -> str:
        """Put a file of requests there; its id. Another upload of the same is another file, which costs nothing."""

        async def call() -> str:
            reply = await self._client.upload("/files", file, "batch", _until(FILE_SECONDS))
            return _read(FileObject, reply).id

        return await self._patiently(call)

    async def create(self, file_id: str, run: str, part: str) -> Batch:
        """Make a batch of a file, found again by `run` and `part`; made once, whatever answers are lost."""

        async def call() -> Batch:
            # An answer that was lost may have been of a batch that was made.
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
        """The batch that was made under these names; None where there is none."""
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
        """How a batch stands."""

        async def call() -> Batch:
            return _read(Batch, await self._client.get(f"/batches/{batch_id}", _until(SECONDS)))

        return await self._patiently(call)

    async def content(self, file_id: str) -> bytes:
        """A file of results."""

        async def call() -> bytes:
            reply = await self._client.get(f"/files/{file_id}/content", _until(FILE_SECONDS))
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
        raise DependencyDown(f"the batch API answers otherwise than OpenAI's: {error}") from None
