"""Settings of the judge, a language model behind an HTTP endpoint: what it costs, and which contents need it."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import NoDecode

from tagbus.stream.config.base.section import Section
from tagbus.stream.config.base.types import Url, Words

BackendChoice = Literal["auto", "decision_api", "yesno", "stated"]
SelectMode = Literal["off", "labels", "tokens"]


class LlmSettings(Section):
    """The server, how it is asked, and what goes into a prompt."""

    url: Url | None = Field(None, description="base URL with its version: http://host:8000/v1; unset: no judge")
    api_key: SecretStr | None = Field(None, description="bearer token; unset: none is sent")
    model: str | None = Field(None, description="the server's name of the model; unset: the first that it lists")
    profile: str = Field(
        "generic",
        min_length=1,
        description="what is true of the server: vllm, sglang, llama.cpp, openai, litellm, generic",
    )
    backend: BackendChoice = Field(
        "auto", description="decision_api, yesno or stated; auto: the first of them that the server can"
    )
    adapter: str | None = Field(None, description="name of a LoRA adapter that the server holds; unset: none")
    deadline_seconds: float = Field(10.0, gt=0, description="for all calls of a content, retries included")
    in_flight: int = Field(16, ge=1, le=1000, description="requests in flight of this worker")
    label_mass: float = Field(
        0.5, ge=0, le=1, description="least probability that yes and no have together; below it a tag is unknown"
    )
    candidates: int = Field(10, ge=1, le=64, description="tags of a content that are judged, best first")
    exemplars: int = Field(
        3, ge=0, le=100, description="exemplars in a prompt at most; of knowledge, knowledge.segments"
    )
    prompt: str = Field("v1", min_length=1, description="version of the prompt")
    prompt_tokens: int = Field(
        2000, ge=200, le=1_000_000, description="tokens of a prompt at most; what is over is cut, exemplars first"
    )
    metadata: Annotated[tuple[str, ...], NoDecode, Words] = Field(
        (), description="fields of a content's metadata that go into prompts, with commas; empty: none"
    )
    watch_seconds: float = Field(
        3600.0, ge=0, description="between looks whether the model has changed, 20 tags each; 0: never"
    )
    select: SelectMode = Field(
        "off",
        description="the model selects among the candidates: off; labels, before they are judged; tokens, instead",
    )


class BudgetSettings(Section):
    """Limits of all workers of a group together; a worker may spend its share of the partitions of `content`."""

    tokens_per_minute: int | None = Field(None, ge=1, description="tokens of prompts and answers; unset: no limit")
    tokens_per_day: int | None = Field(None, ge=1, description="the same a day (UTC)")
    cost_per_minute: float | None = Field(None, gt=0, description="in USD; unset: no limit")
    cost_per_day: float | None = Field(None, gt=0, description="the same a day (UTC)")
    requests_per_minute: float | None = Field(None, gt=0, description="sent evenly; unset: no limit")
    price_in: float | None = Field(
        None, ge=0, description="USD of a million tokens of prompts; unset: what genai-prices knows of the server"
    )
    price_cached: float | None = Field(
        None, ge=0, description="the same of those that the server had cached; unset: price_in"
    )
    price_out: float | None = Field(None, ge=0, description="the same of tokens of answers; unset: price_in")
    batch_price: float = Field(0.5, ge=0, le=1, description="price of a batch's tokens, as a share of the others'")
    breaker_failures: int = Field(5, ge=1, description="failures in a row after which nothing is sent for a while")
    breaker_seconds: float = Field(10.0, gt=0, description="how long, before one request is tried")
    cache: int = Field(10_000, ge=0, description="answers of contents that are kept for the same question")

    @property
    def limited(self) -> bool:
        """Whether there is a limit that lasts beyond a restart."""
        limits = (self.tokens_per_minute, self.tokens_per_day, self.cost_per_minute, self.cost_per_day)
        return any(limit is not None for limit in limits)


class CascadeSettings(Section):
    """Contents whose scores are decisive skip the judge; `tagbus calibrate` fits from where on they are."""

    quality: float | None = Field(
        None, gt=0, lt=1, description="share of contents that have the judge's best tag at least; unset: all are asked"
    )
    share: float | None = Field(
        None, ge=0, le=1, description="share of contents that are asked, instead of cascade.quality"
    )
    delta: float = Field(0.05, gt=0, lt=1, description="probability that cascade.quality is missed")
    control: float = Field(
        0.05, ge=0, le=1, description="share of contents that are asked in any case, by a hash of the id"
    )
