"""Settings of telemetry: logs, OTLP, drift."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from tagbus.stream.config.base.section import Section
from tagbus.stream.config.base.types import Headers, Url


class LogSettings(Section):
    """Lines of the log on standard error."""

    format: Literal["text", "json"] = Field("text", description="json: an object a line, never with a content's text")


class OtelSettings(Section):
    """OpenTelemetry over HTTP (OTLP, protobuf)."""

    endpoint: Url | None = Field(None, description="base URL of a collector: http://host:4318; unset: nothing is sent")
    headers: Headers = Field({}, description="HTTP headers of each request; masked in all output")
    ca_file: Path | None = Field(None, description="PEM of the CAs that verify the collector's certificate")
    sample: float = Field(
        0.01, ge=0, le=1, description="share of contents without a `traceparent` that start a new trace"
    )
    metrics_seconds: float = Field(60.0, ge=0, description="between two exports of the metrics; 0: they are not sent")
    timeout_seconds: float = Field(10.0, gt=0, description="deadline of an export")


class DriftSettings(Section):
    """The population stability index of tagged contents against a reference window."""

    reference: int = Field(2_000, ge=200, le=100_000, description="contents of the reference window")
    window: int = Field(1_000, ge=100, le=1_000_000, description="number of latest contents to compare with it")
    contents_per_second: float = Field(20.0, ge=0, description="contents sampled, the rest is skipped; 0: none")
    file: Path | None = Field(
        None, description="keeps the reference over restarts; unset: the first contents after a start are the reference"
    )
