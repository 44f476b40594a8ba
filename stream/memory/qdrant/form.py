"""The form of a collection: its settings at creation, and how an existing one differs from them."""

from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from qdrant_client import AsyncQdrantClient
from qdrant_client import models as qdrant

from tagbus.stream.config import CollectionSettings

# Points that one request may return, also under strict mode.
SCROLL: Final = 10_000
# The share of values within int8's range; those beyond are clipped (Qdrant's advice for embeddings).
QUANTILE: Final = 0.99


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting in which a collection differs: its value in the collection, and in the settings."""

    setting: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.setting} is {self.found}, expected {self.expected}"


def creation(
    client: AsyncQdrantClient, name: str, dimension: int, form: CollectionSettings, metadata: Mapping[str, object]
) -> Awaitable[bool]:
    """The call that creates a collection of this form."""
    return client.create_collection(
        name,
        qdrant.VectorParams(size=dimension, distance=qdrant.Distance.COSINE, on_disk=form.vectors_on_disk),
        shard_number=form.shards,
        replication_factor=form.replicas,
        write_consistency_factor=form.write_consistency,
        on_disk_payload=form.payload_on_disk,
        hnsw_config=qdrant.HnswConfigDiff(m=form.hnsw_m, ef_construct=form.hnsw_ef_construct),
        quantization_config=_quantization(form),
        strict_mode_config=_strict_mode(form),
        metadata=dict(metadata),
    )


def search_parameters(form: CollectionSettings, asked: int, *, filtered: bool) -> qdrant.SearchParams:
    """The parameters of a search for `asked` points. With int8, scores are those of the full vectors, so thresholds
    stay valid."""
    acorn, quantization = None, None
    if filtered and form.scope_search == "acorn":
        acorn = qdrant.AcornSearchParams(enable=True)
    if form.quantization != "none":
        quantization = qdrant.QuantizationSearchParams(rescore=True, oversampling=form.oversampling)
    return qdrant.SearchParams(
        hnsw_ef=max(form.hnsw_ef, 2 * asked),
        exact=filtered and form.scope_search == "exact",
        acorn=acorn,
        quantization=quantization,
    )


def differences(form: CollectionSettings, config: qdrant.CollectionConfig) -> list[Difference]:
    """Every setting in which a collection differs from one created now, except those that the server does not
    report."""
    found = dict(_found(config))
    return [
        Difference(f"memory.{name}", _shown(found[name]), _shown(getattr(form, name)))
        for name in found
        if found[name] not in (None, getattr(form, name))
    ]


def _found(config: qdrant.CollectionConfig) -> Iterator[tuple[str, int | bool | str | None]]:
    params, vectors = config.params, config.params.vectors
    yield "shards", params.shard_number
    yield "replicas", params.replication_factor
    yield "write_consistency", params.write_consistency_factor
    payload = params.payload and params.payload.memory
    yield "payload_on_disk", params.on_disk_payload if payload is None else payload == qdrant.Memory.COLD
    hnsw, quantization = None, config.quantization_config
    if isinstance(vectors, qdrant.VectorParams):
        cold = vectors.memory == qdrant.Memory.COLD
        yield "vectors_on_disk", bool(vectors.on_disk) if vectors.memory is None else cold
        hnsw, quantization = vectors.hnsw_config, vectors.quantization_config or quantization
    yield "hnsw_m", config.hnsw_config.m if hnsw is None or hnsw.m is None else hnsw.m
    construct = None if hnsw is None else hnsw.ef_construct
    yield "hnsw_ef_construct", config.hnsw_config.ef_construct if construct is None else construct
    yield "quantization", _kind(quantization)
    yield "strict_mode", bool(config.strict_mode_config and config.strict_mode_config.enabled)


def _kind(quantization: object) -> str:
    match quantization:
        case None:
            return "none"
        case qdrant.ScalarQuantization():
            return "int8"
        case _:
            return type(quantization).__name__.removesuffix("Quantization").lower()


def _quantization(form: CollectionSettings) -> qdrant.ScalarQuantization | None:
    if form.quantization == "none":
        return None
    scalar = qdrant.ScalarQuantizationConfig(type=qdrant.ScalarType.INT8, quantile=QUANTILE, always_ram=True)
    return qdrant.ScalarQuantization(scalar=scalar)


def _strict_mode(form: CollectionSettings) -> qdrant.StrictModeConfig:
    """Strict mode that lets tagbus's requests pass. Filtered updates name their points, so they need no index."""
    if not form.strict_mode:
        return qdrant.StrictModeConfig(enabled=False)
    return qdrant.StrictModeConfig(
        enabled=True,
        max_query_limit=SCROLL,
        unindexed_filtering_retrieve=False,
        search_allow_exact=True,
        search_max_oversampling=form.oversampling,
    )


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
