"""Settings of the judge: a language model behind an HTTP endpoint."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import NoDecode

from tagbus.stream.config.section import Section
from tagbus.stream.config.types import Url, Words

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
