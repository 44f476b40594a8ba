"""Settings of people's decisions."""

from pydantic import Field

from tagbus.stream.config.base.section import Section


class FeedbackSettings(Section):
    """What people are shown, and how calibration follows their decisions."""

    explore: float = Field(
        0.05, ge=0, le=0.5, description="share of the shown slots for candidates below the cut, by confidence decile"
    )
    blind: float = Field(0.02, ge=0, le=1, description="share of the contents that are shown without scores")
    calibrate_seconds: float = Field(
        60.0, ge=0, description="minimum interval of fits of the calibration on decisions; 0: never fitted"
    )
