"""The base class of all sections."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of the tree: frozen, and unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
