"""Settings of what people decide."""

from pydantic import Field

from tagbus.stream.config.base.section import Section


class FeedbackSettings(Section):
    """What people are shown, and how calibration follows what they decide."""

    explore: float = Field(
        0.05, ge=0, le=0.5, description="share of the shown places for candidates below the cut, by confidence decile"
    )
    blind: float = Field(0.02, ge=0, le=1, description="share of the contents that are shown without scores")
    calibrate_seconds: float = Field(
        60.0, ge=0, description="least time between two fits of the calibration on decisions; 0: it is never fitted"
    )
