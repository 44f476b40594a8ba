"""The base class of all sections."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of the tree: frozen; unknown names, nan and infinite numbers are errors."""

    # A program that gives a wrong key sees pydantic's own words, which would repeat it.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)
