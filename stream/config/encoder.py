"""Settings of the encoder and of releases."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

from tagbus.stream.config.base.section import Section

Provider = Literal["tensorrt", "cuda", "cpu"]


class EncoderSettings(Section):
    """Encoding of texts: by ONNX Runtime in-process, or by Triton."""

    kind: Literal["in_process", "triton"] = "in_process"
    folder: Path | None = Field(None, description="folder of the release; unset: the one shipped in the package")
    threads: int = Field(
        0, ge=0, description="in-process threads; 0: all cores that the container may use, or two on a GPU"
    )
    providers: Annotated[tuple[Provider, ...], NoDecode] = Field(
        ("cpu",), description="in-process ONNX Runtime providers, most preferred first: tensorrt, cuda, cpu; commas"
    )
    fp16: bool = Field(False, description="whether TensorRT computes in FP16; its vectors belong to another release")
    engines: Path | None = Field(None, description="TensorRT's cache folder of built engines; unset: none")
    address: str = Field("127.0.0.1:8001", description="Triton's gRPC, host:port; several with commas")
    model: str = Field("encoder", min_length=1, description="Triton's name of the model")
    version: int = Field(1, ge=1, description="Triton's version of the model, which every request names")
    deadline_seconds: float = Field(10.0, gt=0, description="deadline of a request to Triton, retries included")
    in_flight: int = Field(8, ge=1, le=1000, description="requests in flight at Triton, over all servers")
    cache: int = Field(10_000, ge=0, description="vectors cached by text in front of Triton; 0: none")
    tls: bool = Field(False, description="whether to use TLS with Triton's gRPC")
    tls_ca: Path | None = Field(None, description="PEM of the CAs that verify Triton's certificate")
    tls_certificate: Path | None = Field(None, description="PEM of this worker's certificate, if Triton requires one")
    tls_key: Path | None = Field(None, description="PEM of its key")

    @field_validator("providers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        found = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
        if not isinstance(found, tuple | list) or not found or not set(found) <= set(get_args(Provider)):
            raise PydanticCustomError("providers", "expected tensorrt, cuda or cpu, several with commas")
        return found


class ReleaseSettings(Section):
    """Releases, which are switched without a restart."""

    folder: Path | None = Field(
        None, description="folder with a subfolder for each release, by name; unset: only encoder.folder"
    )
