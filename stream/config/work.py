"""Settings of processing: batches, retries, dead letters."""

from typing import Literal

from pydantic import Field

from tagbus.stream.config.base.section import Section


class BatchSettings(Section):
    """How content is batched, and how much of it may be in flight."""

    contents: int = Field(128, ge=1, le=10_000, description="contents per batch at most")
    seconds: float = Field(0.1, ge=0, description="how long a batch waits to fill while others are in flight")
    idle_seconds: float = Field(
        0.0, ge=0, description="the same while none is in flight; set to `seconds` for fewer and larger batches"
    )
    in_flight: int = Field(
        4, ge=1, description="batches tagged concurrently; as many in flight per partition, four times as many in total"
    )
    in_flight_bytes: int = Field(64_000_000, ge=1_000_000, description="bytes of values in flight at most")
    drain_seconds: float = Field(20.0, gt=0, description="how long a stop or a revocation drains batches in flight")
    record_bytes: int = Field(
        1_000_000, ge=10_000, description="largest outgoing value; keep below max.message.bytes, headers need room"
    )


class RetrySettings(Section):
    """Backoff with full jitter while a dependency is down."""

    first_seconds: float = Field(0.1, gt=0)
    cap_seconds: float = Field(10.0, gt=0)
    deadline_seconds: float | None = Field(
        None, gt=0, description="how long a dependency may be down before the worker exits with code 4; unset: forever"
    )


class TriageSettings(Section):
    """When events are dead-lettered or skipped."""

    poison_share: float = Field(
        0.2, gt=0, le=1, description="share of recent contents that may be dead-lettered before the worker ends; 1: any"
    )
    poison_window: int = Field(1000, ge=10, description="number of recent contents for poison_share")
    deadly_starts: int = Field(
        3, ge=2, le=100, description="starts after which a content that crashes the process is dead-lettered"
    )
    duplicates: Literal["publish", "skip"] = Field(
        "publish",
        description="an unchanged content that arrives again: tag and publish it again, or skip it",
    )
    versions: int = Field(1_000_000, ge=0, description="published versions kept in memory at most")
