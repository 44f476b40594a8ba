"""Settings of recall, and of published tags."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from tagbus.stream.config.base.section import Section


class RecallSettings(Section):
    """Overrides of the release's recall parameters; unset: the release's fitted value."""

    c2t: bool = Field(True, description="recall by similarity of content and tag (LLM4Tag, C2T)")
    c2t_trained: bool = Field(
        True, description="C2T also searches the tags that a trained component scores for every content anyway"
    )
    c2c2t: bool = Field(True, description="recall through similar contents (LLM4Tag, C2C2T)")
    c2t_threshold: float | None = Field(None, ge=-1, le=1, description="minimum cosine of content and tag")
    c2t_limit: int | None = Field(None, ge=1, description="candidates by C2T at most")
    c2c_threshold: float | None = Field(None, ge=-1, le=1, description="minimum cosine of content and exemplar")
    c2c2t_limit: int | None = Field(None, ge=1, description="candidates by C2C2T at most")
    tau: float | None = Field(None, gt=0, description="temperature of RAE-XMC's softmax")
    lambda_: float | None = Field(
        None, ge=0, le=1, alias="lambda", description="RAE-XMC's share of exemplars against tags"
    )
    tag_keys: int | None = Field(None, ge=1, le=1000, description="tags among the b keys of RAE-XMC")
    content_keys: int | None = Field(None, ge=1, le=1000, description="exemplars among the b keys of RAE-XMC")


class KnowledgeSettings(Section):
    """Segments of knowledge for prompts (LLM4Tag, section 3.2.2)."""

    segments: int = Field(3, ge=0, le=100, description="segments per content at most; 0: none are retrieved")
    threshold: float | None = Field(
        None, ge=-1, le=1, description="minimum cosine of content and segment; unset: the release's c2t_threshold"
    )


class TaggerSettings(Section):
    """Which scored candidates are published."""

    tags: int = Field(10, ge=1, le=1000, description="tags per content at most")
    least_confidence: float = Field(0.0, ge=0, le=1, description="tags below it are left out")
    neighbours: int = Field(1, ge=0, le=100, description="neighbours named in a tag's evidence at most")
    broader: Literal["keep", "drop", "add"] = Field(
        "keep", description="broader tags of a returned one: as found, left out, or all added"
    )
    calibration: Path | None = Field(None, description="JSON of `tagbus calibrate`; the release's own if unset")
    write_back: float | None = Field(
        None, ge=0, le=1, description="confidence from which a result becomes a machine exemplar; off if unset"
    )
