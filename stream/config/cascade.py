"""Settings of which contents the judge is asked about."""

from pydantic import Field

from tagbus.stream.config.section import Section


class CascadeSettings(Section):
    """Contents whose scores are decisive skip the judge; `tagbus calibrate` fits from where on they are."""

    quality: float | None = Field(
        None, gt=0, lt=1, description="share of contents that have the judge's best tag at least; unset: all are asked"
    )
    share: float | None = Field(
        None, ge=0, le=1, description="share of contents that are asked, instead of cascade.quality"
    )
    delta: float = Field(0.05, gt=0, lt=1, description="probability that cascade.quality is missed")
    control: float = Field(
        0.05, ge=0, le=1, description="share of contents that are asked in any case, by a hash of the id"
    )
