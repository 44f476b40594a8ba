"""Backups of a shared memory in files: Qdrant's own snapshots, one a kind, with a description.

    FOLDER/backup.json         the release, and each file with its hash
    FOLDER/tags.snapshot       as the server made it, indexes included

A snapshot includes the collection's metadata, so a restored memory knows the offsets to resume from. On a cluster a
node's snapshot has only its own shards, so there a backup is refused.
"""

import hashlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from tagbus.stream.config import MemorySettings
from tagbus.stream.errors import DependencyDown, Fatal, ReleaseMismatch, UserError, shorten
from tagbus.stream.memory.qdrant.client import Server, connect, trust
from tagbus.stream.memory.qdrant.collections import Collections, CollectionSpec

BACKUP: Final = "backup.json"
# The limit for connecting; creating and sending a snapshot of a large collection has none.
CONNECT_SECONDS: Final = 10.0
CHUNK: Final = 1 << 20


class Copy(BaseModel):
    """The file of one kind."""

    model_config = ConfigDict(frozen=True)

    file: str
    sha256: str


class Backup(BaseModel):
    """backup.json."""

    model_config = ConfigDict(frozen=True)

    release: str
    dimension: int
    copies: Mapping[str, Copy]

    @classmethod
    def read(cls, folder: Path) -> "Backup":
        """Raises UserError if the folder has none."""
        try:
            return cls.model_validate_json((folder / BACKUP).read_bytes())
        except (OSError, ValidationError) as error:
            raise UserError(f"{folder / BACKUP} is no copy of a memory: {shorten(str(error), 200)}") from None


class BackupServer:
    """Creates and restores backups of the collections on a server."""

    def __init__(self, settings: MemorySettings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """`transport` replaces the network in tests."""
        self._settings = settings
        self._server: Server = connect(settings)
        self._transport = transport

    async def save(self, specs: Mapping[str, CollectionSpec], folder: Path) -> Backup:
        """Copy the build of each kind that readers see into the folder.

        Raises UserError for a missing kind, a collection that is spread over a cluster, and a folder that cannot be
        written; DependencyDown for a server that does not answer.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            copies = {kind: await self._saved(kind, spec, folder) for kind, spec in specs.items()}
            first = next(iter(specs.values()))
            backup = Backup(release=first.release, dimension=first.dimension, copies=copies)
            draft = folder / f"{BACKUP}.new"
            draft.write_text(backup.model_dump_json(indent=1), encoding="utf-8")
            draft.replace(folder / BACKUP)
        except OSError as error:
            raise UserError(f"{folder} cannot store the copy: {error.strerror}") from None
        return backup

    async def restore(self, specs: Mapping[str, CollectionSpec], folder: Path, owner: str) -> None:
        """Create a new build of each kind from the copy, then switch readers to them.

        Raises UserError for a folder without a whole copy, ReleaseMismatch for one of another release or owner.
        """
        backup = Backup.read(folder)
        for kind, spec in specs.items():
            _check(backup, kind, spec, folder)
        made = {kind: f"{spec.alias}.{uuid.uuid4().hex[:8]}" for kind, spec in specs.items()}
        try:
            for kind, name in made.items():
                await self._upload(name, folder / backup.copies[kind].file, backup.copies[kind].sha256)
            for kind, name in made.items():
                await self._show(specs[kind], name, owner)
        except BaseException:
            for kind, name in made.items():
                if await Collections(self._server, specs[kind]).behind() != name:
                    await self._server.call(self._server.client.delete_collection(name))
            raise

    async def close(self) -> None:
        """Close the connections."""
        await self._server.client.close()

    async def _saved(self, kind: str, spec: CollectionSpec, folder: Path) -> Copy:
        name = await Collections(self._server, spec).behind()
        if name is None:
            raise UserError(f"there is no collection behind {spec.alias}: `tagbus index` builds it")
        async with self._asking() as client:
            if (await self._result(client.get(f"/collections/{name}/cluster"))).get("remote_shards"):
                raise UserError(
                    f"collection {name} is spread over a cluster, where a snapshot holds one node's part: "
                    "expected a single server; a cluster is filled again from the topics"
                )
            snapshot = str((await self._result(client.post(f"/collections/{name}/snapshots"))).get("name"))
            path = f"/collections/{name}/snapshots/{snapshot}"
            digest = await self._download(client, path, folder / f"{kind}.snapshot")
            await self._result(client.delete(path))
        return Copy(file=f"{kind}.snapshot", sha256=digest)

    async def _download(self, client: httpx.AsyncClient, path: str, file: Path) -> str:
        digest, draft = hashlib.sha256(), file.with_suffix(".new")
        async with client.stream("GET", path) as response:
            self._require(response)
            with draft.open("wb") as out:
                async for chunk in response.aiter_bytes(CHUNK):
                    digest.update(chunk)
                    out.write(chunk)
        draft.replace(file)
        return digest.hexdigest()

    async def _upload(self, name: str, file: Path, sha256: str) -> None:
        asked = {"wait": "true", "priority": "snapshot", "checksum": sha256}
        async with self._asking() as client:
            with file.open("rb") as body:
                sent = {"snapshot": (file.name, body)}
                path = f"/collections/{name}/snapshots/upload"
                await self._result(client.post(path, params=asked, files=sent))

    async def _show(self, spec: CollectionSpec, name: str, owner: str) -> None:
        collections = Collections(self._server, spec)
        state = await collections.state(name)
        if state is None or state.owner != owner:
            found = "nothing" if state is None else state.owner
            raise ReleaseMismatch(f"the copy of {spec.alias} is of {found}, this is {owner}")
        await collections.record(name, state.model_copy(update={"build": name.rpartition(".")[2], "complete": True}))

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[httpx.AsyncClient]:
        key = self._settings.api_key
        async with httpx.AsyncClient(
            base_url=self._settings.url,
            headers={} if key is None else {"api-key": key.get_secret_value()},
            verify=trust(self._settings),
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            transport=self._transport,
            trust_env=False,
        ) as client:
            try:
                yield client
            except httpx.HTTPError as error:
                reason = shorten(f"{type(error).__name__}: {error}", 200)
                raise DependencyDown(f"Qdrant at {self._server.place} does not answer: {reason}") from error

    async def _result(self, asking: Awaitable[httpx.Response]) -> Mapping[str, object]:
        response = await asking
        self._require(response)
        result = response.json().get("result")
        return result if isinstance(result, dict) else {}

    def _require(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        said = f"Qdrant at {self._server.place} answered {response.status_code} {response.reason_phrase}"
        if response.status_code in (401, 403):
            raise UserError(f"{said}: it does not accept the key in TAGBUS_MEMORY__API_KEY")
        raise DependencyDown(said) if response.status_code >= 500 else Fatal(said)


def _check(backup: Backup, kind: str, spec: CollectionSpec, folder: Path) -> None:
    if (backup.release, backup.dimension) != (spec.release, spec.dimension):
        raise ReleaseMismatch(
            f"{folder} holds a copy of release {shorten(backup.release)} with {backup.dimension} dimensions, this is "
            f"{spec.release} with {spec.dimension}"
        )
    copy = backup.copies.get(kind)
    if copy is None or Path(copy.file).name != copy.file:
        raise UserError(f"{folder / BACKUP} names no file of {kind}, expected {kind}.snapshot")
    digest = hashlib.sha256()
    try:
        with (folder / copy.file).open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise UserError(f"{folder / copy.file} cannot be read: {error.strerror}") from None
    if digest.hexdigest() != copy.sha256:
        raise UserError(f"{folder / copy.file} is damaged: expected the file with SHA-256 {copy.sha256}")
