"""The JSON output of `tagbus explain`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tagbus.stream.contract.events import Degraded, Neighbour, Versions


class Part(BaseModel):
    """A part of an explanation."""

    model_config = ConfigDict(frozen=True)


class Cut(Part):
    """Where a candidate was left out, and why."""

    stage: str = Field(description="of the pipeline: recall, rank, select or calibrate")
    reason: str = Field(description="the values compared, and the setting or the decision that counts")


class Listed(Part):
    """A candidate in the list of one component."""

    score: float
    place: int = Field(description="in the component's list, from 1")
    matched: str | None = Field(None, description="the name or the words by which it was found")


class Candidate(Part):
    """A tag that was found for the content, published or not."""

    id: str
    name: str | None = Field(description="null: it is not in force")
    found_by: tuple[str, ...] = Field(description="meta-paths (C2T, C2C2T), components, people")
    similarity: float | None = Field(None, description="cosine of content and tag (C2T)")
    votes: int = Field(0, description="neighbours that carry it (C2C2T)")
    neighbours: tuple[Neighbour, ...] = Field((), description="those, most similar first")
    components: dict[str, Listed] = Field(default_factory=dict, description="by component")
    place: int | None = Field(None, description="in the ranking, from 1; null: it was cut before")
    score: float | None = Field(None, description="the ranking's; null: it was cut before")
    confidence: float | None = Field(None, description="null: it was not published")
    features: dict[str, float | None] | None = Field(None, description="what the ranker saw; null without one")
    cut: Cut | None = Field(description="null: it was published")


class Around(Part):
    """An exemplar near the content."""

    id: str
    source: Literal["people", "machine"]
    title: str
    similarity: float
    counts: bool = Field(description="whether it is at least as similar as recall.c2c_threshold (LLM4Tag)")
    tags: dict[str, str | None] = Field(description="names of the tags that it accepted, by id; null: not in force")


class Knowledge(Part):
    """A segment of knowledge that a prompt for the content carries."""

    id: str
    kind: str
    title: str
    text: str
    similarity: float


class Hidden(Part):
    """Tags and exemplars as near as those found, but hidden from contents of these scopes."""

    tags: int
    exemplars: int


class Explanation(Part):
    """One content."""

    id: str
    title: str
    scopes: tuple[str, ...]
    versions: Versions
    scored_by: str = Field(description="the steps that scored it, whose curve gave the confidences")
    path: tuple[str, ...]
    degraded: tuple[Degraded, ...]
    parameters: dict[str, float | bool | None] = Field(description="of recall and of what is published, in force")
    candidates: tuple[Candidate, ...] = Field(description="as ranked, then those that were cut before")
    neighbours: tuple[Around, ...] = Field(description="most similar first")
    knowledge: tuple[Knowledge, ...] = Field(description="most similar first")
    hidden: Hidden
