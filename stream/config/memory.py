"""Settings of the vector store."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from tagbus.stream.config.section import Section


class MemorySettings(Section):
    """The vector store for tags and exemplars."""

    kind: Literal["exact", "hnsw", "embedded", "server"] = "exact"
    path: Path | None = Field(None, description="folder of the embedded engine; a temporary one if unset")
    url: str = Field("http://127.0.0.1:6333", description="Qdrant server, with its port")
    api_key: SecretStr | None = None
    ca_file: Path | None = Field(None, description="PEM of the authority that signed the server's certificate")
    certificate_file: Path | None = Field(None, description="PEM of the client certificate for the server")
    key_file: Path | None = Field(None, description="PEM of the client certificate's key, if it is in another file")
    namespace: str = Field(
        "tagbus", pattern=r"^[A-Za-z0-9_-]{1,60}$", description="what the names of collections on the server begin with"
    )
    deadline_seconds: float = Field(10.0, gt=0, description="for a call to the server")
    request_bytes: int = Field(
        800_000, ge=20_000, description="largest request to the server; proxies often allow 1 MB"
    )
    max_age_seconds: float = Field(
        300.0, gt=30, description="a worker is not ready if the shared memory was last complete longer ago"
    )
    tombstone_hours: float = Field(24.0, gt=0, description="delete.retention.ms of the memory topics, in hours")
