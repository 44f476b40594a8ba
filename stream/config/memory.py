"""Settings of the vector store."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from tagbus.stream.config.base.section import Section
from tagbus.stream.config.base.types import Key, PlainUrl


class CollectionSettings(Section):
    """How a Qdrant server stores and searches a collection. Storage settings apply when the collection is created."""

    shards: int = Field(1, ge=1, le=1_000, description="shards of a collection; a cluster spreads them over its nodes")
    replicas: int = Field(1, ge=1, le=100, description="replicas of each shard")
    write_consistency: int = Field(1, ge=1, le=100, description="replicas that confirm a write")
    vectors_on_disk: bool = Field(False, description="whether full vectors are read from disk; with hnsw payloads too")
    payload_on_disk: bool = Field(True, description="whether payloads are read from disk")
    quantization: Literal["none", "int8"] = Field(
        "none", description="int8: search in a quarter of the memory, then rescore with the full vectors"
    )
    oversampling: float = Field(2.0, ge=1, le=10, description="int8 points searched for each point that is rescored")
    hnsw_m: int = Field(16, ge=4, le=128, description="edges per point in the index")
    hnsw_ef_construct: int = Field(100, ge=8, le=4_096, description="points visited to insert one into the index")
    hnsw_ef: int = Field(256, ge=8, le=8_192, description="points visited by a search, at least")
    scope_search: Literal["acorn", "exact", "graph"] = Field(
        "acorn", description="search by scope: ACORN if few points match, all matching points, or the graph alone"
    )
    strict_mode: bool = Field(False, description="whether the server refuses costly requests to the collections")

    @field_validator("write_consistency")
    @classmethod
    def _within_replicas(cls, factor: int, info: ValidationInfo) -> int:
        replicas = info.data.get("replicas", factor)
        if factor > replicas:
            raise PydanticCustomError("replicas", "expected at most memory.replicas={most}", {"most": replicas})
        return factor


class MemorySettings(CollectionSettings):
    """The vector store for tags and exemplars."""

    kind: Literal["exact", "hnsw", "embedded", "server"] = "exact"
    path: Path | None = Field(
        None, description="folder of the embedded engine, or of hnsw's vectors on disk; a temporary one if unset"
    )
    index_dimensions: int | None = Field(
        None,
        ge=8,
        description="how many numbers of a vector hnsw's index holds, the first ones, for an encoder that was trained "
        "with shorter vectors; results are scored by the whole vectors; unset: all",
    )
    index_visited: int = Field(
        160, ge=16, le=8_192, description="points of hnsw's index that a search visits, at least"
    )
    url: PlainUrl = Field("http://127.0.0.1:6333", description="Qdrant server, with its port")
    api_key: Key | None = None
    ca_file: Path | None = Field(None, description="PEM of the authority that signed the server's certificate")
    certificate_file: Path | None = Field(None, description="PEM of the client certificate for the server")
    key_file: Path | None = Field(None, description="PEM of the client certificate's key, if it is in another file")
    namespace: str = Field(
        "tagbus", pattern=r"^[A-Za-z0-9_-]{1,60}$", description="prefix of the names of collections on the server"
    )
    deadline_seconds: float = Field(10.0, gt=0, description="deadline of a call to the server")
    request_bytes: int = Field(
        800_000, ge=20_000, description="largest request to the server; proxies often allow 1 MB"
    )
    max_age_seconds: float = Field(
        300.0, gt=30, description="a worker is not ready if the shared memory was last complete longer ago than this"
    )
    retire_share: float = Field(
        0.5, gt=0, le=1, description="share of tags (of 100 or more) above which retiring within a minute is held"
    )
    tombstone_hours: float = Field(24.0, gt=0, description="delete.retention.ms of the memory topics, in hours")
