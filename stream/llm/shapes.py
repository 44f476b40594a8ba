"""The parts of answers that all endpoints share, parsed strictly: a server's answer is as untrusted as a content."""

from typing import Annotated, Final, TypeVar

from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

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

# The largest context of a model is 10 million tokens; a count of 400 digits fits neither a price nor a metric.
MOST_TOKENS: Final = 100_000_000
# Characters kept of a model's name: it goes into results, which have to fit a record.
MODEL: Final = 200
# Characters of an answer in a message at most.
_WORDS: Final = 200

Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)]

M = TypeVar("M", bound=BaseModel)


class Malformed(Exception):
    """An answer does not have its endpoint's shape."""


class Shape(BaseModel):
    """A part of an answer. Unknown fields pass: servers add some."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Counts(Shape):
    """Tokens, under the names of the two kinds of endpoints."""

    tokens_in: Tokens = Field(0, validation_alias=AliasChoices("input_tokens", "prompt_tokens"))
    tokens_out: Tokens = Field(0, validation_alias=AliasChoices("output_tokens", "completion_tokens"))
    cached: Tokens | None = Field(
        None,
        validation_alias=AliasChoices(
            AliasPath("input_tokens_details", "cached_tokens"), AliasPath("prompt_tokens_details", "cached_tokens")
        ),
    )

    @property
    def usage(self) -> Usage:
        """Usage without calls, which are counted as they are sent."""
        # Cached tokens are part of the prompt's: more of them would make a negative cost.
        return Usage(0, self.tokens_in, self.tokens_out, min(self.cached or 0, self.tokens_in))


def _named(value: object) -> str | None:
    return value[:MODEL] if isinstance(value, str) else None


def _counted(value: object, counts: ValidatorFunctionWrapHandler) -> object:
    try:
        return counts(value)
    except ValidationError:
        return None


class Said(Shape):
    """The metadata in the answers of all endpoints. What is odd in it counts as missing: the answer itself is good."""

    model: Annotated[str | None, BeforeValidator(_named)] = None
    usage: Annotated[Counts | None, WrapValidator(_counted)] = None

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
        # Both hold parts of the answer: the names in a mapping, a value that is none of a list.
        where = _printable(".".join(map(str, first["loc"]))) or "the answer"
        raise Malformed(f"{where}: {_printable(first['msg'])}") from None


def unknown(reason: str, count: int) -> list[Answer]:
    """The same reason for `count` tags."""
    return [Answer(unknown=reason)] * count


def _printable(words: str) -> str:
    """The beginning of a text that may hold parts of an answer."""
    return "".join(filter(str.isprintable, words[:_WORDS]))
