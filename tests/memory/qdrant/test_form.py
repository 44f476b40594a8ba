"""The form of a collection: its creation, its search parameters, and differences of an existing one.

The client's in-memory mode ignores shards, quantization and indexes, so these tests check the requests to a server.
"""

import logging
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient
from qdrant_client import models as qdrant

from tagbus.stream.config import CollectionSettings
from tagbus.stream.memory import Point
from tagbus.stream.memory.qdrant.client import Server, connect
from tagbus.stream.memory.qdrant.form import differences, search_parameters
from tagbus.stream.memory.qdrant.server import ServerStore
from tests.memory.qdrant.parts import OWNER, settings, spec

UNIT = np.array([1, 0], np.float32)
CLUSTER = CollectionSettings(
    shards=3,
    replicas=2,
    write_consistency=2,
    vectors_on_disk=True,
    payload_on_disk=False,
    quantization="int8",
    oversampling=3,
    hnsw_m=32,
    hnsw_ef_construct=200,
    strict_mode=True,
)


def config(**params: object) -> qdrant.CollectionConfig:
    """A server's description of a collection with its defaults and these parameters."""
    vectors = qdrant.VectorParams(size=2, distance=qdrant.Distance.COSINE)
    return qdrant.CollectionConfig(
        params=qdrant.CollectionParams.model_validate({"vectors": vectors, **params}),
        hnsw_config=qdrant.HnswConfig(m=16, ef_construct=100, full_scan_threshold=10_000),
        optimizer_config=qdrant.OptimizersConfig(
            deleted_threshold=0.2, vacuum_min_vector_number=1_000, default_segment_number=0, flush_interval_sec=5
        ),
    )


class Recording(AsyncQdrantClient):
    """Qdrant in this process, which records its requests."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.calls: list[tuple[str, dict[str, Any]]] = []

    async def create_collection(self, collection_name: str, *positional: Any, **more: Any) -> bool:  # type: ignore[override]
        self.calls.append(("create_collection", {"vectors": positional[0], **more}))
        return await super().create_collection(collection_name, *positional, **more)

    async def create_payload_index(self, collection_name: str, *positional: Any, **more: Any) -> Any:  # type: ignore[override]
        self.calls.append(("create_payload_index", {"field": positional[0], "kind": positional[1]}))
        return await super().create_payload_index(collection_name, *positional, **more)

    async def upsert(self, collection_name: str, *positional: Any, **more: Any) -> Any:  # type: ignore[override]
        self.calls.append(("upsert", more))
        return await super().upsert(collection_name, *positional, **more)


async def test_a_collection_is_made_as_the_settings_say_and_indexed_before_it_is_filled() -> None:
    client = Recording()
    store = ServerStore(Server(client, "memory", form=CLUSTER), spec())
    await store.begin(OWNER, "tags")
    await store.upsert([Point("a", UNIT, {})])

    names = [name for name, _ in client.calls]
    assert names[0] == "create_collection"
    assert names.index("upsert") > max(at for at, name in enumerate(names) if name == "create_payload_index")
    indexes = {more["field"]: more["kind"] for name, more in client.calls if name == "create_payload_index"}
    assert indexes["scopes"] == qdrant.PayloadSchemaType.KEYWORD
    asked = client.calls[0][1]
    assert (asked["shard_number"], asked["replication_factor"], asked["write_consistency_factor"]) == (3, 2, 2)
    assert (asked["vectors"].on_disk, asked["on_disk_payload"]) == (True, False)
    assert (asked["hnsw_config"].m, asked["hnsw_config"].ef_construct) == (32, 200)
    assert asked["quantization_config"].scalar.type == qdrant.ScalarType.INT8
    assert asked["quantization_config"].scalar.always_ram
    assert asked["strict_mode_config"].enabled
    assert asked["strict_mode_config"].unindexed_filtering_retrieve is False


async def test_without_strict_mode_a_collection_has_none_despite_the_servers_default() -> None:
    client = Recording()
    await ServerStore(Server(client, "memory"), spec()).begin(OWNER, "tags")
    assert client.calls[0][1]["strict_mode_config"] == qdrant.StrictModeConfig(enabled=False)
    assert client.calls[0][1]["quantization_config"] is None


def test_with_int8_scores_are_those_of_the_full_vectors() -> None:
    parameters = search_parameters(CLUSTER, 20, filtered=False)
    assert parameters.quantization == qdrant.QuantizationSearchParams(rescore=True, oversampling=3)


@pytest.mark.parametrize(
    ("way", "asked"),
    [
        ("acorn", {"exact": False, "acorn": {"enable": True}}),
        ("exact", {"exact": True}),
        ("graph", {"exact": False}),
    ],
)
def test_a_search_by_scope_goes_the_way_of_the_settings(way: str, asked: dict[str, object]) -> None:
    form = CollectionSettings.model_validate({"scope_search": way})
    scoped = search_parameters(form, 20, filtered=True)
    assert scoped.model_dump(include={"exact", "acorn"}, exclude_none=True) == asked
    whole = search_parameters(form, 20, filtered=False)
    assert (whole.exact, whole.acorn) == (False, None)


def test_a_search_looks_at_twice_as_many_points_as_it_is_asked_for() -> None:
    assert search_parameters(CollectionSettings(hnsw_ef=64), 10, filtered=False).hnsw_ef == 64
    assert search_parameters(CollectionSettings(hnsw_ef=64), 100, filtered=False).hnsw_ef == 200


def test_a_collection_of_the_servers_defaults_does_not_differ_from_the_settings_defaults() -> None:
    assert differences(CollectionSettings(), config()) == []


def test_each_difference_is_named_with_the_value_found_and_expected() -> None:
    found = [str(one) for one in differences(CLUSTER, config(shard_number=2))]
    assert found == [
        "memory.shards is 2, expected 3",
        "memory.replicas is 1, expected 2",
        "memory.write_consistency is 1, expected 2",
        "memory.payload_on_disk is true, expected false",
        "memory.vectors_on_disk is false, expected true",
        "memory.hnsw_m is 16, expected 32",
        "memory.hnsw_ef_construct is 100, expected 200",
        "memory.quantization is none, expected int8",
        "memory.strict_mode is false, expected true",
    ]


def test_what_a_newer_server_says_in_its_own_words_is_understood() -> None:
    cold = qdrant.VectorParams(size=2, distance=qdrant.Distance.COSINE, memory=qdrant.Memory.COLD)
    by_hand = config(vectors=cold, payload=qdrant.PayloadStorageParams(memory=qdrant.Memory.CACHED))
    by_hand.quantization_config = qdrant.BinaryQuantization(binary=qdrant.BinaryQuantizationConfig())
    assert [str(one) for one in differences(CollectionSettings(), by_hand)] == [
        "memory.payload_on_disk is false, expected true",
        "memory.vectors_on_disk is true, expected false",
        "memory.quantization is binary, expected none",
    ]


async def test_a_writer_says_at_its_start_how_a_collection_differs(caplog: pytest.LogCaptureFixture) -> None:
    client = AsyncQdrantClient(":memory:")
    await ServerStore(Server(client, "memory"), spec()).begin(OWNER, "tags")
    with caplog.at_level(logging.WARNING):
        await ServerStore(Server(client, "memory", form=CollectionSettings(hnsw_m=48)), spec()).begin(OWNER, "tags")
    (line,) = [record.getMessage() for record in caplog.records if "hnsw_m" in record.getMessage()]
    assert "collection tagbus-r1-tags." in line
    assert "memory.hnsw_m is 16, expected 48; `tagbus memory rebuild` rebuilds it" in line


def test_the_settings_go_with_the_connection() -> None:
    server = connect(settings("http://127.0.0.1:6333", shards=4, hnsw_ef=99))
    assert (server.form.shards, server.form.hnsw_ef) == (4, 99)
