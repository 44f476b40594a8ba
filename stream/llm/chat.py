"""Chat completions: requests by profile, and the parts read of an answer: token probabilities, or JSON by labels."""

import json
import math
import string
from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import Field, JsonValue

from tagbus.stream.llm.base import Answer
from tagbus.stream.llm.client import Body
from tagbus.stream.llm.profile import Profile
from tagbus.stream.llm.prompts import Rendered
from tagbus.stream.llm.shapes import (
    LABEL_MASS,
    MALFORMED,
    MISSING,
    NO_LOGPROBS,
    REFUSAL,
    Malformed,
    Shape,
    parsed,
)
from tagbus.stream.telemetry import LLM_OUTSIDE

PATH: Final = "/chat/completions"
# One token each in the vocabularies of language models, and never the name of a tag.
LABELS: Final = tuple(string.ascii_uppercase[:20])
# Characters that tokenizers put before a word, and that models put around it.
_AROUND: Final = " \n\t\r\u2581\u0120\u010a*_\"'`.:,!"
# The token limit of a JSON answer, which may contain any white space.
JSON_TOKENS: Final = 32
TOKENS_A_LABEL: Final = 14
# Temperature of texts: at 0 all exemplars of a tag are the same.
WRITING: Final = 0.8
# Servers report this for the logarithm of zero.
_LEAST: Final = -1e6
# Probabilities of one token add up to 1, up to rounding.
_MOST: Final = 1.01
# What a word that is not among a token's alternatives may have at most, as a share of the other's.
_HIDDEN: Final = 0.05


class Top(Shape):
    """A token and the logarithm of its probability."""

    token: str
    logprob: float = Field(ge=_LEAST * 1e6, le=0.001, allow_inf_nan=True)


class Token(Top):
    """A token of the answer, and its alternatives."""

    top_logprobs: Sequence[Top] = ()


class _Logprobs(Shape):
    content: Sequence[Token] | None = None


class _Message(Shape):
    content: str | None = None
    refusal: str | None = None


class _Choice(Shape):
    message: _Message
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class Completion(Shape):
    """An answer of the endpoint."""

    choices: Sequence[_Choice] = Field(min_length=1, max_length=100)

    @property
    def text(self) -> str:
        """The text of the answer."""
        return self.choices[0].message.content or ""

    @property
    def refused(self) -> bool:
        """Whether the model, or a filter before or behind it, declined."""
        choice = self.choices[0]
        return bool(choice.message.refusal) or choice.finish_reason == "content_filter"

    @property
    def truncated(self) -> bool:
        """Whether it ended at the token limit."""
        return self.choices[0].finish_reason == "length"

    @property
    def tokens(self) -> Sequence[Token]:
        """Its tokens with their probabilities; empty if the server returns none."""
        logprobs = self.choices[0].logprobs
        return (logprobs.content or ()) if logprobs else ()


def completion(body: bytes) -> Completion:
    """Parse the answer. Raises Malformed."""
    return parsed(Completion, body)


def one_token(profile: Profile, model: str | None, rendered: Rendered, question: str, adapter: str | None) -> Body:
    """A request for one token and the probabilities of its alternatives."""
    # At temperature 0, a server that reports probabilities after temperature returns 1 and 0.
    temperature = 1.0 if profile.logprobs == "tempered" else 0.0
    body = _request(profile, model, rendered, question, 1, temperature, adapter)
    return {**body, "logprobs": True, "top_logprobs": profile.top_logprobs}


def by_schema(
    profile: Profile,
    model: str | None,
    rendered: Rendered,
    question: str,
    schema: dict[str, JsonValue],
    labels: int,
    adapter: str | None,
) -> Body:
    """A request for a JSON object of that schema over this many labels."""
    most = JSON_TOKENS + TOKENS_A_LABEL * labels
    return _held(profile, schema, _request(profile, model, rendered, question, most, 0.0, adapter))


def writing(
    profile: Profile,
    model: str | None,
    rendered: Rendered,
    question: str,
    schema: dict[str, JsonValue],
    tokens: int,
    adapter: str | None,
) -> Body:
    """A request for texts in a JSON object of that schema, limited in tokens, different on each call."""
    return _held(profile, schema, _request(profile, model, rendered, question, tokens, WRITING, adapter))


def _held(profile: Profile, schema: dict[str, JsonValue], body: dict[str, JsonValue]) -> Body:
    if profile.constraint == "none":
        return body
    wanted: JsonValue = {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": schema},
    }
    return {**body, "response_format": wanted}


def stated_schema(labels: Sequence[str]) -> dict[str, JsonValue]:
    """An object with a whole number for each label."""
    numbers: dict[str, JsonValue] = {label: {"type": "integer"} for label in labels}
    return {"type": "object", "properties": numbers, "required": list(labels), "additionalProperties": False}


def select_schema(labels: Sequence[str]) -> dict[str, JsonValue]:
    """An object with a list of labels."""
    tags: JsonValue = {"type": "array", "items": {"type": "string", "enum": list(labels)}}
    return {"type": "object", "properties": {"tags": tags}, "required": ["tags"], "additionalProperties": False}


def yes_no(answer: Completion, words: Sequence[str], floor: float) -> Answer:
    """The share of the first word of the two, each summed over its variants; unknown if both together are below
    `floor`, or if one may be hidden among the alternatives that the server does not name."""
    if answer.refused:
        return Answer(unknown=REFUSAL)
    if not answer.tokens or not answer.tokens[0].top_logprobs:
        return Answer(unknown=NO_LOGPROBS)
    every = [math.exp(one.logprob) for one in answer.tokens[0].top_logprobs]
    masses = [_mass(answer.tokens[0].top_logprobs, word) for word in words]
    both = sum(masses)
    if not math.isfinite(both) or math.fsum(every) > _MOST:
        return Answer(unknown=MALFORMED)
    # A token that is not named has no more than the last that is, and than all that are named leave.
    hidden = min(*every, 1 - math.fsum(every)) if 0 in masses else 0.0
    if both < floor or both == 0 or hidden > _HIDDEN * both:
        return Answer(unknown=LABEL_MASS)
    return Answer(min(1.0, masses[0] / both))


def stated(answer: Completion, labels: Sequence[str]) -> list[Answer]:
    """The numbers of a JSON answer as probabilities. Raises Malformed for any other answer."""
    if answer.refused:
        return [Answer(unknown=REFUSAL)] * len(labels)
    found = _json_object(answer.text)
    if outside := len(found.keys() - set(labels)):
        LLM_OUTSIDE.inc(outside)
    return [_percent(found[label]) if label in found else Answer(unknown=MISSING) for label in labels]


def listed(answer: Completion) -> list[str]:
    """The items that a JSON answer lists under `tags`. Raises Malformed without a list."""
    tags = _json_object(answer.text).get("tags")
    if not isinstance(tags, list):
        raise Malformed("tags: expected a list")
    return [one for one in tags if isinstance(one, str)]


def selected(answer: Completion, labels: Sequence[str]) -> list[str]:
    """The labels that a JSON answer lists, except unasked ones. Raises Malformed without a list."""
    found = listed(answer)
    if outside := len([one for one in found if one not in labels]):
        LLM_OUTSIDE.inc(outside)
    return [label for label in labels if label in found]


def _request(
    profile: Profile,
    model: str | None,
    rendered: Rendered,
    question: str,
    tokens: int,
    temperature: float,
    adapter: str | None,
) -> dict[str, JsonValue]:
    messages: list[JsonValue] = [
        {"role": "system", "content": rendered.task},
        {"role": "user", "content": f"{rendered.context}\n\n{question}"},
    ]
    body: dict[str, JsonValue] = {"messages": messages, profile.token_limit: tokens, **profile.thinking_off}
    if profile.temperature:
        body["temperature"] = temperature
    match profile.adapter if adapter else "none":
        case "model":
            model = adapter
        case "suffix":
            model = f"{model}:{adapter}"
        case "lora_id":
            body["lora"] = [{"id": int(adapter or 0), "scale": 1.0}]
        case _:
            pass
    return body if model is None else {"model": model, **body}


def _mass(alternatives: Sequence[Top], word: str) -> float:
    """Tokens of the same text count once each: `Yes`, ` yes` and `YES` are different tokens."""
    wanted = word.casefold()
    return math.fsum(math.exp(one.logprob) for one in alternatives if one.token.strip(_AROUND).casefold() == wanted)


def _percent(value: JsonValue) -> Answer:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        return Answer(unknown=MALFORMED)
    return Answer(value / 100)


def _json_object(text: str) -> Mapping[str, JsonValue]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise Malformed("the text is not JSON") from None
    if not isinstance(found, dict):
        raise Malformed("the JSON is not an object")
    return found
