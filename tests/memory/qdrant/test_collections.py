"""The collections of a store, as readers see them while a writer fills, loses and refills it."""

from unittest.mock import AsyncMock

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient
from qdrant_client import models as qdrant

from tagbus.stream.errors import MemoryLost, ReleaseMismatch, UserError
from tagbus.stream.memory import Point
from tagbus.stream.memory.qdrant.server import ServerStore
from tagbus.stream.memory.shared import BuildState
from tests.memory.qdrant.parts import OWNER, reader, spec, writer

ONE = "0a1b2c3d"
UNIT = np.array([1, 0], np.float32)


async def complete(store: ServerStore, **more: object) -> BuildState:
    state = (await store.begin(OWNER, "tags")).model_copy(update={"complete": True, **more})
    await store.record(state)
    return state


async def names(client: AsyncQdrantClient) -> set[str]:
    return {one.name for one in (await client.get_collections()).collections}


async def create(client: AsyncQdrantClient, metadata: dict[str, object] | None, **vectors: object) -> None:
    """A foreign collection, under the name of the store's."""
    parameters = qdrant.VectorParams.model_validate({"size": 2, "distance": qdrant.Distance.COSINE, **vectors})
    await client.create_collection(f"tagbus-r1-tags.{ONE}", parameters, metadata=metadata)
    alias = qdrant.CreateAlias(collection_name=f"tagbus-r1-tags.{ONE}", alias_name="tagbus-r1-tags")
    await client.update_collection_aliases([qdrant.CreateAliasOperation(create_alias=alias)])


async def test_a_reader_creates_nothing(client: AsyncQdrantClient) -> None:
    assert await reader(client).state() is None
    assert await names(client) == set()


async def test_a_reader_sees_a_build_once_it_is_complete(client: AsyncQdrantClient) -> None:
    store = await writer(client)
    await store.upsert([Point("x", UNIT, {})])
    assert await reader(client).state() is None

    state = await complete(store, offsets={"0": 7})

    assert await reader(client).state() == state
    assert await reader(client).keys() == {"x"}


async def test_applied_offsets_are_recorded_with_the_points(client: AsyncQdrantClient) -> None:
    store = await writer(client)
    state = await complete(store, offsets={"0": 7, "1": 9})
    await store.record(state.model_copy(update={"offsets": {"0": 8}, "current": 12.5}))
    seen = await reader(client).state()
    assert seen is not None
    assert (seen.offsets, seen.current, seen.build) == ({"0": 8}, 12.5, state.build)


async def test_an_incomplete_build_is_resumed(client: AsyncQdrantClient) -> None:
    first = await writer(client)
    again = await writer(client)
    assert again.collection == first.collection
    assert len(await names(client)) == 1


async def test_a_new_build_takes_the_place_of_the_old_one_when_it_is_complete(client: AsyncQdrantClient) -> None:
    store = await writer(client)
    await store.upsert([Point("old", UNIT, {})])
    await complete(store)

    fresh = reader(client)
    state = await fresh.begin_anew(OWNER, "tags")
    await fresh.upsert([Point("new", UNIT, {})])
    assert await reader(client).keys() == {"old"}
    await fresh.record(state.model_copy(update={"complete": True}))

    assert await reader(client).keys() == {"new"}
    assert await names(client) == {fresh.collection}


async def test_a_writer_whose_build_was_replaced_does_not_take_its_place_back(
    client: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a rebuild that was interrupted before it deleted the old build, whose writer still runs."""
    store = await writer(client)
    await store.upsert([Point("old", UNIT, {})])
    state = await complete(store)
    fresh = reader(client)
    new = await fresh.begin_anew(OWNER, "tags")
    await fresh.upsert([Point("new", UNIT, {})])
    with monkeypatch.context() as patch:
        patch.setattr(client, "delete_collection", AsyncMock())
        await fresh.record(new.model_copy(update={"complete": True}))

    with pytest.raises(MemoryLost, match="was replaced by another build; restart to use that one"):
        await store.record(state.model_copy(update={"offsets": {"0": 7}}))

    assert await reader(client).keys() == {"new"}


async def test_kinds_releases_and_namespaces_have_collections_of_their_own(client: AsyncQdrantClient) -> None:
    specs = [spec(), spec("exemplars"), spec(release="r2"), spec(namespace="other")]
    stores = [await writer(client, at) for at in specs]
    await stores[0].upsert([Point("x", UNIT, {})])
    assert [await store.count() for store in stores] == [1, 0, 0, 0]
    assert {name.rpartition(".")[0] for name in await names(client)} == {
        "tagbus-r1-tags",
        "tagbus-r1-exemplars",
        "tagbus-r2-tags",
        "other-r1-tags",
    }


async def test_a_dropped_store_leaves_nothing_and_takes_nothing_of_others(client: AsyncQdrantClient) -> None:
    stores = [await writer(client, at) for at in (spec(), spec("exemplars"), spec(release="r1-tags"))]
    await complete(stores[0])
    await stores[0].begin_anew(OWNER, "tags")
    await stores[0].drop()
    assert await reader(client).state() is None
    assert await names(client) == {stores[1].collection, stores[2].collection}


async def test_a_second_installation_may_not_write(client: AsyncQdrantClient) -> None:
    await complete(await writer(client))
    with pytest.raises(ReleaseMismatch, match=r"belongs to cluster c1.*this is cluster c2.*TAGBUS_MEMORY__NAMESPACE"):
        await writer(client, owner="cluster c2, topic tags")


@pytest.mark.parametrize(
    ("release", "dimension", "said"), [("r0", 2, "of release 'r0'"), ("r1", 3, "holds 3 dimensions.* with 2")]
)
async def test_a_build_of_another_release_is_refused(
    client: AsyncQdrantClient, release: str, dimension: int, said: str
) -> None:
    """A build of another release has this release's name, by an alias or a copy."""
    state = BuildState(owner=OWNER, release=release, dimension=dimension, build=ONE, topic="tags")
    await create(client, {"tagbus": state.model_dump()}, size=dimension)
    with pytest.raises(ReleaseMismatch, match=rf"collection tagbus-r1-tags of memory.*{said}"):
        await reader(client).state()


@pytest.mark.parametrize(
    "vectors",
    [
        {"distance": "Euclid"},
        {"datatype": "uint8"},
        {"multivector_config": {"comparator": "max_sim"}},
    ],
)
async def test_vectors_of_another_form_are_refused(client: AsyncQdrantClient, vectors: dict[str, object]) -> None:
    await create(client, None, **vectors)
    with pytest.raises(ReleaseMismatch, match="expected one unnamed cosine vector of float32"):
        await reader(client).state()


async def test_a_collection_that_does_not_say_what_it_holds_is_refused(client: AsyncQdrantClient) -> None:
    await create(client, None)
    with pytest.raises(ReleaseMismatch, match=r"has no metadata of tagbus.*before 1.16"):
        await reader(client).state()


def test_a_release_that_is_no_name_is_refused(client: AsyncQdrantClient) -> None:
    with pytest.raises(UserError, match="'a/b' names no collection"):
        reader(client, spec(release="a/b"))
