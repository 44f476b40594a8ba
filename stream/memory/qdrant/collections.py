"""The collections of one store on a Qdrant server: their names, their form, and the one that readers see.

Readers use an alias, `NAMESPACE-RELEASE-KIND`. It points to a collection, named after the alias and the build's id,
once that is complete: no reader ever sees a store that is still being filled. The collection's metadata holds the state
of the build (`BuildState`). Qdrant has metadata since 1.16, and merges it by its first level.
"""

import logging
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError
from qdrant_client import models as qdrant

from tagbus.stream.errors import MemoryLost, ReleaseMismatch, UserError, shorten
from tagbus.stream.memory.qdrant.client import Server
from tagbus.stream.memory.qdrant.conditions import RETIRED
from tagbus.stream.memory.qdrant.engine import SCOPES
from tagbus.stream.memory.qdrant.form import Difference, creation, differences
from tagbus.stream.memory.shared import BuildState
from tagbus.stream.memory.validity import FROM, UNTIL

log = logging.getLogger(__name__)

RELEASE: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")
# The fields that searches and counts are filtered by.
INDEXED: Final = {
    SCOPES: qdrant.PayloadSchemaType.KEYWORD,
    FROM: qdrant.PayloadSchemaType.INTEGER,
    UNTIL: qdrant.PayloadSchemaType.INTEGER,
    RETIRED: qdrant.PayloadSchemaType.INTEGER,
}
# tagbus's field of the metadata.
STATE: Final = "tagbus"


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """Identifies the store of a kind of a release on a server, with the dimension of its vectors."""

    namespace: str
    release: str
    kind: str
    dimension: int

    @property
    def alias(self) -> str:
        """The alias by which readers use the collection."""
        return f"{self.namespace}-{self.release}-{self.kind}"

    def check(self) -> None:
        """Raises UserError for a release whose name cannot be part of a collection name."""
        if not RELEASE.fullmatch(self.release):
            raise UserError(
                f"release {shorten(self.release)} names no collection: letters, digits, '.', '_' and '-' do"
            )


class Collections:
    """The builds of one store."""

    def __init__(self, server: Server, spec: CollectionSpec) -> None:
        spec.check()
        self._server = server
        self._client = server.client
        self._spec = spec
        # Whether readers have seen the build that this process writes.
        self._shown = False

    async def state(self, name: str | None = None) -> BuildState | None:
        """The state of the build with that name, or of the one behind the alias; None if there is none.

        Raises ReleaseMismatch for a collection that tagbus did not create, or created otherwise.
        """
        try:
            info = await self._server.call(self._client.get_collection(name or self._spec.alias))
        except (MemoryLost, ValueError):
            # The in-memory client reports it in its own way.
            return None
        return self._checked(name or self._spec.alias, info)

    async def differences(self, name: str | None = None) -> list[Difference]:
        """The settings in which a build differs, the one with that name or the one behind the alias; none if there is
        no build."""
        try:
            info = await self._server.call(self._client.get_collection(name or self._spec.alias))
        except (MemoryLost, ValueError):
            return []
        return differences(self._server.form, info.config)

    async def begin(self, owner: str, topic: str) -> tuple[str, BuildState]:
        """The build to write, as `SharedStore.begin` chooses it, and its name."""
        behind = await self.behind()
        names = [behind] if behind else [name async for name in self._builds()]
        for name in names:
            state = await self.state(name)
            if state is None:
                continue
            if state.owner != owner:
                raise ReleaseMismatch(
                    f"{self._of(name)} belongs to {state.owner}, this is {owner}: give each installation its own "
                    f"TAGBUS_MEMORY__NAMESPACE, or delete the collection if that one no longer exists"
                )
            for one in await self.differences(name):
                log.warning("%s: %s; `tagbus memory rebuild` rebuilds it", self._of(name), one)
            await self._index(name)
            self._shown = name == behind
            return name, state
        return await self.begin_anew(owner, topic)

    async def begin_anew(self, owner: str, topic: str) -> tuple[str, BuildState]:
        """A new, empty build and its name."""
        build = uuid.uuid4().hex[:8]
        spec = self._spec
        name = f"{spec.alias}.{build}"
        state = BuildState(owner=owner, release=spec.release, dimension=spec.dimension, build=build, topic=topic)
        made = creation(self._client, name, spec.dimension, self._server.form, _metadata(state))
        await self._server.call(made)
        # Before there are points: built later, the vector index would not cover the scopes.
        await self._index(name)
        await self.state(name)
        self._shown = False
        return name, state

    async def record(self, name: str, state: BuildState) -> None:
        """Store the state. A complete build becomes the one that readers see, once, and the others are deleted.

        Raises MemoryLost if another build has replaced it since.
        """
        await self._server.call(self._client.update_collection(name, metadata=_metadata(state)))
        if not state.complete:
            return
        if await self.behind() != name:
            if self._shown:
                raise MemoryLost(f"{self._of(name)} was replaced by another build; restart to use that one")
            await self._show(name)
        self._shown = True

    async def _show(self, name: str) -> None:
        alias = self._spec.alias
        operations: list[qdrant.AliasOperations] = [
            qdrant.DeleteAliasOperation(delete_alias=qdrant.DeleteAlias(alias_name=alias)),
            qdrant.CreateAliasOperation(create_alias=qdrant.CreateAlias(collection_name=name, alias_name=alias)),
        ]
        await self._server.call(self._client.update_collection_aliases(operations))
        async for other in self._builds():
            if other != name:
                await self._server.call(self._client.delete_collection(other))

    async def discard(self) -> None:
        """Delete the builds without an alias: interrupted fills."""
        behind = await self.behind()
        async for name in self._builds():
            if name != behind:
                await self._server.call(self._client.delete_collection(name))

    async def drop(self) -> None:
        """Delete every build, and the alias."""
        async for name in self._builds():
            await self._server.call(self._client.delete_collection(name))

    async def _index(self, name: str) -> None:
        """Create the indexes of the filtered fields; an existing one is no error."""
        for field, kind in INDEXED.items():
            await self._server.call(self._client.create_payload_index(name, field, kind, wait=True))

    async def behind(self) -> str | None:
        """The collection behind the alias."""
        aliases = (await self._server.call(self._client.get_aliases())).aliases
        return next((one.collection_name for one in aliases if one.alias_name == self._spec.alias), None)

    async def _builds(self) -> AsyncIterator[str]:
        """The collections of this store, complete or not."""
        ours = re.compile(re.escape(self._spec.alias) + r"\.[0-9a-f]{8}")
        for one in (await self._server.call(self._client.get_collections())).collections:
            if ours.fullmatch(one.name):
                yield one.name

    def _checked(self, name: str, info: qdrant.CollectionInfo) -> BuildState:
        vectors = info.config.params.vectors
        if not isinstance(vectors, qdrant.VectorParams) or not _plain(vectors):
            raise ReleaseMismatch(
                f"{self._of(name)} was not created by tagbus: expected one unnamed cosine vector of float32; delete it"
            )
        try:
            state = BuildState.model_validate((info.config.metadata or {}).get(STATE))
        except ValidationError:
            raise ReleaseMismatch(
                f"{self._of(name)} has no metadata of tagbus: not created by tagbus, or by a Qdrant before 1.16, "
                "which keeps no metadata of a collection"
            ) from None
        spec = self._spec
        if (state.release, vectors.size) != (spec.release, spec.dimension):
            raise ReleaseMismatch(
                f"{self._of(name)} holds {vectors.size} dimensions of release {shorten(state.release)}, this process "
                f"runs release {shorten(spec.release)} with {spec.dimension}; delete it and let it be rebuilt"
            )
        return state

    def _of(self, name: str) -> str:
        return f"collection {name} of {self._server.place}"


def _plain(vectors: qdrant.VectorParams) -> bool:
    """Whether scores are as tagbus expects: other data types round, and multivectors are compared otherwise."""
    return (
        vectors.distance == qdrant.Distance.COSINE
        and vectors.multivector_config is None
        and vectors.datatype in (None, qdrant.Datatype.FLOAT32)
    )


def _metadata(state: BuildState) -> dict[str, object]:
    return {STATE: state.model_dump(mode="json")}
