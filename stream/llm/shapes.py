"""The parts of answers that all endpoints share, parsed strictly: a server's answer is as untrusted as a content."""

from typing import Annotated, Final, TypeVar

from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, ValidationError

from tagbus.stream.llm.base import Answer, Usage

# Why a tag is unknown: the values of `Answer.unknown` and of a metric's label.
LABEL_MASS: Final = "label_mass"
NO_LOGPROBS: Final = "no_logprobs"
MALFORMED: Final = "malformed"
MISSING: Final = "missing"
REFUSAL: Final = "refusal"
REJECTED: Final = "rejected"
UNASKED: Final = "unasked"
UNSELECTED: Final = "unselected"

Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

M = TypeVar("M", bound=BaseModel)


class Malformed(Exception):
    """An answer does not have its endpoint's shape."""


class Shape(BaseModel):
    """A part of an answer. Unknown fields pass: servers add some."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Counts(Shape):
    """Tokens, under the names of the two kinds of endpoints."""

    tokens_in: int = Field(0, ge=0, validation_alias=AliasChoices("input_tokens", "prompt_tokens"))
    tokens_out: int = Field(0, ge=0, validation_alias=AliasChoices("output_tokens", "completion_tokens"))
    cached: int | None = Field(
        None,
        ge=0,
        validation_alias=AliasChoices(
            AliasPath("input_tokens_details", "cached_tokens"), AliasPath("prompt_tokens_details", "cached_tokens")
        ),
    )

    @property
    def usage(self) -> Usage:
        """Usage without calls, which are counted as they are sent."""
        return Usage(0, self.tokens_in, self.tokens_out, self.cached or 0)


class Said(Shape):
    """The metadata in the answers of all endpoints."""

    model: str | None = None
    usage: Counts | None = None

    def took(self, estimate: Usage) -> Usage:
        """Its token counts, or the estimate's: no prompt is empty, so counts of 0 are not trusted: with them a token
        limit would never be reached."""
        counts = self.usage.usage if self.usage else Usage()
        return counts if counts.tokens_in else Usage(0, estimate.tokens_in, estimate.tokens_out)


def parsed(shape: type[M], body: bytes) -> M:
    """The answer. Raises Malformed."""
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Malformed(f"{'.'.join(map(str, first['loc'])) or 'the answer'}: {first['msg']}") from None


def unknown(reason: str, count: int) -> list[Answer]:
    """The same reason for `count` tags."""
    return [Answer(unknown=reason)] * count
