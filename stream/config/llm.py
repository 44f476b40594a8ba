"""Settings of the judge, a language model behind an HTTP endpoint: its budget, and which contents need it."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import NoDecode

from tagbus.stream.config.base.section import Section
from tagbus.stream.config.base.types import Key, Url, Words

BackendChoice = Literal["auto", "decision_api", "yesno", "stated"]
SelectMode = Literal["off", "labels", "tokens"]


class LlmSettings(Section):
    """The server, how it is asked, and what goes into a prompt."""

    url: Url | None = Field(None, description="base URL with its version: http://host:8000/v1; unset: no judge")
    api_key: Key | None = Field(None, description="bearer token; unset: none is sent")
    model: str | None = Field(None, description="the server's name of the model; unset: the first that it lists")
    profile: str = Field(
        "generic",
        min_length=1,
        description="kind of server: vllm, sglang, llama.cpp, openai, litellm, generic",
    )
    backend: BackendChoice = Field(
        "auto", description="decision_api, yesno or stated; auto: the first of them that the server supports"
    )
    adapter: str | None = Field(None, description="name of a LoRA adapter loaded on the server; unset: none")
    deadline_seconds: float = Field(10.0, gt=0, description="for all calls of a content, retries included")
    in_flight: int = Field(16, ge=1, le=1000, description="requests in flight per worker")
    label_mass: float = Field(
        0.5, ge=0, le=1, description="minimum joint probability of yes and no; below it a tag is unknown"
    )
    candidates: int = Field(10, ge=1, le=64, description="tags of a content that are judged, best first")
    exemplars: int = Field(
        3, ge=0, le=100, description="exemplars in a prompt at most; for knowledge see knowledge.segments"
    )
    prompt: str = Field("v1", min_length=1, description="version of the prompt")
    prompt_tokens: int = Field(
        2000, ge=200, le=1_000_000, description="tokens of a prompt at most; the excess is cut, exemplars first"
    )
    metadata: Annotated[tuple[str, ...], NoDecode, Words] = Field(
        (), description="fields of a content's metadata that go into prompts, with commas; empty: none"
    )
    watch_seconds: float = Field(
        3600.0, ge=0, description="interval of checks whether the model has changed, 20 tags each; 0: never"
    )
    select: SelectMode = Field(
        "off",
        description="the model selects among the candidates: off; labels, before they are judged; tokens, instead",
    )


class BudgetSettings(Section):
    """Limits for all workers of a group together; a worker's share is its share of the partitions of `content`."""

    tokens_per_minute: int | None = Field(None, ge=1, description="tokens of prompts and answers; unset: no limit")
    tokens_per_day: int | None = Field(None, ge=1, description="the same a day (UTC)")
    cost_per_minute: float | None = Field(None, gt=0, description="in USD; unset: no limit")
    cost_per_day: float | None = Field(None, gt=0, description="the same a day (UTC)")
    requests_per_minute: float | None = Field(None, gt=0, description="paced evenly; unset: no limit")
    price_in: float | None = Field(
        None, ge=0, description="USD per million prompt tokens; unset: the price of genai-prices for the server"
    )
    price_cached: float | None = Field(
        None, ge=0, description="the same for prompt tokens cached by the server; unset: price_in"
    )
    price_out: float | None = Field(None, ge=0, description="the same for answer tokens; unset: price_in")
    batch_price: float = Field(0.5, ge=0, le=1, description="price of batch tokens, as a share of the regular price")
    breaker_failures: int = Field(5, ge=1, description="consecutive failures that open the circuit breaker")
    breaker_seconds: float = Field(10.0, gt=0, description="how long it stays open before one request is tried")
    cache: int = Field(10_000, ge=0, description="contents whose answers are cached for the same question")

    @property
    def limited(self) -> bool:
        """Whether there is a limit that must survive a restart."""
        limits = (self.tokens_per_minute, self.tokens_per_day, self.cost_per_minute, self.cost_per_day)
        return any(limit is not None for limit in limits)


class CascadeSettings(Section):
    """Contents with decisive scores skip the judge; `tagbus calibrate` fits the margin."""

    quality: float | None = Field(
        None, gt=0, lt=1, description="minimum share of contents with the judge's best tag; unset: all are asked about"
    )
    share: float | None = Field(
        None, ge=0, le=1, description="share of contents that are asked about, instead of cascade.quality"
    )
    delta: float = Field(0.05, gt=0, lt=1, description="probability that cascade.quality is missed")
    control: float = Field(
        0.05, ge=0, le=1, description="share of contents that are asked about in any case, by a hash of the id"
    )
