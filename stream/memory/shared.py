"""A memory that processes share on a server: one writes it, and its stores record what was applied to them.

The applied offsets are kept with the points, so they are lost with them and go back with them when an older volume is
restored. Offsets kept elsewhere would call an empty store complete.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from tagbus.stream.memory.store import Memory, Source, Store


class BuildState(BaseModel):
    """The state of a shared store, as its writer last recorded it."""

    model_config = ConfigDict(frozen=True)

    owner: str = Field(description="the installation: its Kafka cluster and its topic of tags")
    release: str
    dimension: int
    build: str = Field(description="of this filling from the first record on; another one after each loss")
    topic: str
    topic_id: str = Field(default="", description="the cluster's id of it: another one if it is created again")
    offsets: Mapping[str, int] = Field(default={}, description="the next offset of each partition of the topic")
    complete: bool = Field(default=False, description="read to the end once, and retired points removed")
    current: float = Field(default=0.0, description="when everything on the topic was applied last, Unix seconds")


@runtime_checkable
class SharedStore(Store, Protocol):
    """A store that one process writes and others read.

    Two may write for a while, as during a handover. So a point whose payload names its `Source` never replaces one of a
    newer record, neither by `upsert` nor by `set_payloads`.
    """

    async def state(self) -> BuildState | None:
        """The state of the build that readers see; None if there is none.

        Raises ReleaseMismatch for a store of another release, or one that tagbus did not create.
        """

    async def differences(self) -> list[str]:
        """The settings in which the build that readers see differs: each as found and as expected."""

    async def begin(self, owner: str, topic: str) -> BuildState:
        """Become the writer: of the build that readers see, else of one that was never completed, else of a new one.

        Raises ReleaseMismatch for a store of another owner.
        """

    async def begin_anew(self, owner: str, topic: str) -> BuildState:
        """Become the writer of a new build, beside the one that readers see."""

    async def rebuild(self, owner: str, topic: str) -> BuildState:
        """As `begin_anew`, but the remains of interrupted fills are deleted first."""

    async def copy(self) -> int:
        """Copy the points of the build that readers see into the one that this process writes. Returns their number."""

    async def seen(self) -> int:
        """The number of points in the build that readers see; 0 if there is none."""

    async def record(self, state: BuildState) -> None:
        """Store the state of the build that this process writes. Readers see the build once it is complete."""

    async def retire(self, tombstones: Mapping[str, Source]) -> None:
        """Remove by key, except points of a newer record than the tombstone. No older record brings them back."""

    async def sweep(self, keys: Sequence[str], read: Mapping[int, int]) -> None:
        """Remove by key the points that the topic no longer has, except those of unread records.

        `read`: the next offset of each partition.
        """

    async def forget(self, before: float) -> None:
        """Forget points retired before that time, Unix seconds: the topic has no older records of them by then."""

    async def drop(self) -> None:
        """Delete every build of this store, if any."""


def shared_stores(memory: Memory) -> dict[str, SharedStore]:
    """The stores of a shared memory by kind. Raises TypeError for a memory private to this process."""
    stores: dict[str, SharedStore] = {}
    for kind, store in memory.stores.items():
        if not isinstance(store, SharedStore):
            raise TypeError(f"{type(store).__name__} is not shared")
        stores[kind] = store
    return stores
