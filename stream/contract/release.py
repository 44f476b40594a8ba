"""The topic `releases`: each release under its name, the name of the active one under the key `active`, and
calibrations under `calibration/RELEASE/PATH`.

It is compacted. A tombstone drops a release: workers unload it. While nothing is active, the release of encoder.folder
is in force. A calibration can be replaced without changing its release.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from tagbus.stream.contract.codec import Record, Tombstone, parse, unframed
from tagbus.stream.contract.field_errors import invalid
from tagbus.stream.contract.fields import Event, Time
from tagbus.stream.errors import shorten

ACTIVE: Final = "active"
NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,99}$"
# The steps that give a score, joined: a skipped step changes the distribution of scores.
PATH: Final = r"^[a-z0-9_]{1,40}(\+[a-z0-9_]{1,40}){0,19}$"
CALIBRATION: Final = "calibration/"
FIELD: Final = re.compile(r"(\{(?:name|aliases|description)\})")
MOST_KNOTS: Final = 200
# A confidence stays inside (0, 1): no number of pairs proves that a tag is certain.
LEAST: Final = 1e-4
MOST: Final = 1 - 1e-4

ReleaseName = Annotated[str, StringConstraints(pattern=NAME)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Probability = Annotated[float, Field(ge=LEAST, le=MOST)]


class RecallDefaults(BaseModel):
    """What recall starts from with this encoder: cosines and temperatures belong to an encoder and are fitted to it.

    The names are those of LLM4Tag (arXiv 2502.13481: thresholds and limits of C2T and C2C2T) and of RAE-XMC
    (arXiv 2502.10615: tau, lambda, and b as `tag_keys` and `content_keys`). Fitted for all-MiniLM-L6-v2 on 2,500 titles
    of the YSO titles' validation split with all 328,152 training titles in memory: with 50 exemplars P@1 44.1 and R@10
    46.9, with 100 of them 44.1 and 47.7; 20 tags gave what 50 did. With lambda 0.5 P@1 was 43.3; with LLM4Tag's limit
    of 5 for C2C2T R@10 fell by 2.2.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    c2t_threshold: float = Field(0.35, ge=-1, le=1, description="least cosine of content and tag")
    c2t_limit: int = Field(15, ge=1, description="tags that C2T gives at most")
    c2c_threshold: float = Field(0.35, ge=-1, le=1, description="least cosine of content and exemplar")
    c2c2t_limit: int = Field(20, ge=1, description="tags that C2C2T gives at most")
    tau: float = Field(0.08, gt=0, description="temperature of the softmax over the memory")
    lambda_: float = Field(0.3, ge=0, le=1, alias="lambda", description="weight of exemplars; tags get the rest of 1")
    tag_keys: int = Field(20, ge=1, description="nearest tags that the softmax runs over")
    content_keys: int = Field(50, ge=1, description="nearest exemplars that the softmax runs over")


class Release(BaseModel):
    """One immutable set of encoder, tokenizer, template and fitted defaults: release.json beside the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ReleaseName
    encoder: str = Field(description="the model that was exported")
    model_sha256: Sha256
    tokenizer_sha256: Sha256
    golden_sha256: Sha256 = Field(description="of the golden texts and their vectors, which a server must give")
    precision: Literal["float32", "float16", "int8"] = Field(description="of the weights in the file")
    dimension: int = Field(ge=1)
    max_tokens: int = Field(ge=3, description="tokens of a text that are read, [CLS] and [SEP] among them")
    tag_template: str = "{name}\n{aliases}\n{description}"
    recall: RecallDefaults = Field(default_factory=RecallDefaults.model_construct)

    @field_validator("name")
    @classmethod
    def _not_the_key(cls, name: str) -> str:
        if name == ACTIVE:
            raise PydanticCustomError("reserved", "another name: `active` is the key that names the one in force")
        return name

    def tag_text(self, name: str, aliases: Sequence[str] = (), description: str = "") -> str:
        """The text by which a tag is encoded: the template without its empty lines.

        Values are substituted once, so braces in a tag's name are plain text.
        """
        values = {"{name}": name, "{aliases}": ", ".join(aliases), "{description}": description}
        lines = (
            "".join(values.get(part, part) for part in FIELD.split(line)).strip()
            for line in self.tag_template.split("\n")
        )
        return "\n".join(line for line in lines if line)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Identifies the scores that a calibration is fitted to: the release, the steps of the path, and the component
    versions."""

    release: str
    path: str
    components: Mapping[str, str]

    def __str__(self) -> str:
        versions = ", ".join(f"{component} {version}" for component, version in self.components.items())
        return f"{self.release} by {self.path}" + (f" ({versions})" if versions else "")


def _rising(scores: tuple[float, ...]) -> tuple[float, ...]:
    if any(later <= earlier for earlier, later in pairwise(scores)):
        raise PydanticCustomError("not_rising", "scores that rise from knot to knot")
    return scores


def _one_a_score(probabilities: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
    if len(probabilities) != len(info.data.get("scores", probabilities)):
        raise PydanticCustomError("knots_differ", "as many probabilities as scores")
    if any(later < earlier for earlier, later in pairwise(probabilities)):
        raise PydanticCustomError("falling", "probabilities that never fall from knot to knot")
    return probabilities


Scores = Annotated[tuple[FiniteFloat, ...], AfterValidator(_rising)]
Probabilities = Annotated[tuple[Probability, ...], AfterValidator(_one_a_score)]


class Knots(Event):
    """A curve: it is interpolated linearly between its knots, and constant beyond the first and last."""

    scores: Scores = Field(min_length=1, max_length=MOST_KNOTS, description="of the knots, rising")
    probabilities: Probabilities = Field(description="of the knots, never falling")


class JudgeFit(Event):
    """How the judge's probability joins the score of the stages before it: log odds = offset + slope * log odds by
    `before` + weight * log odds by `said`."""

    before: Knots = Field(description="from the score of the stages before the judge to a probability")
    said: Knots = Field(description="from the judge's probability to how often such a tag is right")
    offset: FiniteFloat = Field(description="in log odds")
    slope: FiniteFloat = Field(description="of the stages before the judge")
    weight: Annotated[FiniteFloat, Field(ge=0)] = Field(description="of the judge; 0: it is not asked")
    pairs: int = Field(ge=0, description="pairs of content and tag that the judge had a probability for")
    loss_without: FiniteFloat = Field(description="log loss of held-out pairs without the judge")
    loss_with: FiniteFloat = Field(description="log loss of held-out pairs with it")
    margin: Annotated[FiniteFloat, Field(ge=0)] | None = Field(
        None,
        description="contents whose best candidate leads by at least so much, in log odds by `before`, skip the judge; "
        "null: none does",
    )
    backend: str | None = Field(
        None,
        description="how the judge was asked, as in a result's `versions`: it is worth something for these answers "
        "alone; null: any",
    )


class Curve(Event):
    """A fitted calibration: confidence is interpolated linearly between knots, constant beyond the first and last.

    A null value on the topic means that it counts no longer.
    """

    name: str = Field(min_length=1, description="`isotonic-` or `platt-` and a hash of all the rest, or `none`")
    release: ReleaseName = Field(description="name of the release whose scores it is fitted to")
    path: str = Field(pattern=PATH, description="the steps that gave the scores, joined: `recall+literal+rank`")
    components: dict[str, str] = Field(
        default_factory=dict,
        description="version of each component that took part in the scores",
        json_schema_extra={"default": {}},
    )
    scores: Scores = Field(min_length=1, max_length=MOST_KNOTS, description="of the knots, rising")
    probabilities: Probabilities = Field(description="of the knots, never falling")
    fitted_on: int = Field(ge=0, description="pairs of content and tag")
    contents: int = Field(ge=0, description="contents that the pairs are of")
    judge: JudgeFit | None = Field(None, description="of a path with the judge: what it is worth")

    @property
    def fingerprint(self) -> Fingerprint:
        """What it is fitted to."""
        return Fingerprint(self.release, self.path, self.components)


class Served(Event):
    """Where Triton has the release's model."""

    model: str = Field(min_length=1, description="Triton's name of the model")
    version: int = Field(ge=1, description="Triton's version of it")


class ReleaseRecord(Event):
    """A release that workers hold. A null value on the topic means that it was dropped."""

    release: Release = Field(description="release.json, word by word: what differs from a worker's own is not served")
    triton: Served | None = Field(None, description="where encoder.kind is triton; none: by the settings")


class Active(Event):
    """Which release is in force."""

    release: ReleaseName
    time: Time = Field(description="when it was made so (RFC 3339)")


def decode_release(record: Record) -> ReleaseRecord | Active | Curve | Tombstone:
    """Decode a record of `releases`. Raises Undecodable or InvalidEvent."""
    if record.key is None:
        raise invalid("key", "(missing)", f"a release's name, `{ACTIVE}` or `{CALIBRATION}RELEASE/PATH`")
    key = record.key.decode(errors="replace")
    if record.value is None:
        return Tombstone(key)
    event = parse(unframed(record.value), _model(key))
    if key != (right := release_key(event)):
        raise invalid("key", shorten(key), f"{shorten(right)}, as the value says")
    return event


def encode_release(event: ReleaseRecord | Active | Curve) -> Record:
    """Encode a release, an activation or a calibration as a record."""
    # By alias: `lambda`, as in release.json, is a Python keyword.
    return Record(release_key(event).encode(), event.model_dump_json(by_alias=True).encode())


def release_key(event: ReleaseRecord | Active | Curve) -> str:
    """The key of an event's record."""
    match event:
        case Active():
            return ACTIVE
        case Curve():
            return calibration_key(event.release, event.path)
        case ReleaseRecord():
            return event.release.name


def calibration_key(release: str, path: str) -> str:
    """The key of a calibration's record."""
    return f"{CALIBRATION}{release}/{path}"


def _model(key: str) -> type[ReleaseRecord | Active | Curve]:
    if key == ACTIVE:
        return Active
    return Curve if key.startswith(CALIBRATION) else ReleaseRecord
