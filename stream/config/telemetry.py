"""Settings of what tagbus says of itself."""

from pathlib import Path

from pydantic import Field

from tagbus.stream.config.section import Section


class DriftSettings(Section):
    """The population stability index of what is tagged, against a reference window."""

    reference: int = Field(2_000, ge=200, le=1_000_000, description="contents of the reference window")
    window: int = Field(1_000, ge=100, le=1_000_000, description="the last contents, which are compared with it")
    contents_per_second: float = Field(
        20.0, ge=0, description="contents that are looked at, the others are passed over; 0: none"
    )
    file: Path | None = Field(
        None, description="keeps the reference over restarts; unset: the first contents after a start are the reference"
    )
