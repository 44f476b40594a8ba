"""Settings of web knowledge: a search endpoint whose results are a second source of knowledge for prompts."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import NoDecode

from tagbus.stream.config.base.section import Section
from tagbus.stream.config.base.types import Key, SearchUrl, Words


class WebSettings(Section):
    """Any endpoint that answers a search with JSON (LLM4Tag, section 3.2.2)."""

    url: SearchUrl | None = Field(
        None, description="search endpoint, fixed parameters included; unset: no web knowledge"
    )
    method: Literal["get", "post"] = Field(
        "get", description="get: the query is a parameter; post: a field of a JSON object"
    )
    query: str = Field("q", min_length=1, description="name of that parameter or field")
    api_key: Key | None = Field(None, description="key of the endpoint; unset: none is sent")
    key_header: str = Field(
        "authorization",
        pattern=r"^[A-Za-z0-9-]+$",
        description="header that carries the key: authorization as a bearer token, any other verbatim",
    )
    select: str = Field(
        "results[].{title: title, text: content}",
        min_length=1,
        description="JMESPath to a list of results: texts, or objects with text and optionally title",
    )
    segments: int = Field(2, ge=1, le=20, description="results in a prompt at most, after memory's segments")
    metadata: Annotated[tuple[str, ...], NoDecode, Words] = Field(
        (), description="fields of a content's metadata to search for with its title; empty: none"
    )
    seconds: float = Field(2.0, gt=0, description="deadline of a search, within the content's deadline")
    bytes: int = Field(
        200_000, ge=1000, le=10_000_000, description="bytes of an answer at most; a longer one is ignored"
    )
    in_flight: int = Field(8, ge=1, le=100, description="searches in flight per worker")
    requests_per_minute: float | None = Field(None, gt=0, description="searches per worker; unset: no limit")
    cache: int = Field(10_000, ge=0, description="searches whose results are cached")
    cache_seconds: float = Field(86_400.0, ge=0, description="lifetime of cached results")
