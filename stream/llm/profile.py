"""Server profiles: the known properties of a server, one JSON file each in `profiles/`, data and no code.

`verified` records whether the contract suite has run against the real server; `tagbus check` reports unverified ones.
"""

import importlib.resources
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from tagbus.stream.errors import UserError, shorten

# The decision endpoints: OpenAI's and vLLM's, SGLang's on the same path, and System One's.
ContractName = Literal["openai", "sglang", "systemone"]

_FOLDER: Final = importlib.resources.files("tagbus.stream") / "llm" / "profiles"


class Profile(BaseModel):
    """The properties of a server that the judge uses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    verified: bool = Field(description="whether the contract suite ran against the real server")
    versions: str = Field(description="of the server that it describes")
    source: str = Field(description="where the facts are from")
    decisions: tuple[ContractName, ...] = Field(description="decision endpoints to look for, best first")
    questions: int = Field(ge=1, description="questions of one decision request at most")
    counted: Literal["once", "each"] = Field(
        description="how the usage of a decision request counts the content: once; for each question, with "
        "a token of answer"
    )
    constraint: Literal["json_schema", "none"] = Field(description="how an answer is held to a schema")
    logprobs: Literal["none", "raw", "masked", "tempered"] = Field(
        description="of a chat answer: none; raw; after the constraint's mask; after the temperature"
    )
    top_logprobs: int = Field(ge=0, le=20, description="alternatives of a token at most")
    token_limit: Literal["max_tokens", "max_completion_tokens"] = Field(description="name of the field")
    temperature: bool = Field(description="whether the field is allowed")
    thinking_off: dict[str, JsonValue] = Field(
        description="what a chat request carries so that no reasoning comes first"
    )
    adapter: Literal["none", "model", "suffix", "lora_id"] = Field(
        description="how an adapter is named: not; in place of the model; behind it and a colon; as a number in `lora`"
    )
    cached_tokens: str = Field(description="path in an answer to the tokens that were cached")
    command: str = Field(description="a command line that starts the server")


def profiles() -> list[str]:
    """The names of all profiles."""
    return sorted(file.name.removesuffix(".json") for file in _FOLDER.iterdir() if file.name.endswith(".json"))


def profile(name: str) -> Profile:
    """The profile of that name. Raises UserError."""
    if name not in profiles():
        raise UserError(
            f"TAGBUS_LLM__PROFILE={shorten(name)}: there is no such profile, expected {', '.join(profiles())}"
        )
    try:
        return Profile.model_validate_json((_FOLDER / f"{name}.json").read_bytes())
    except ValidationError as error:
        raise AssertionError(f"profile {name} in the package is wrong: {error}") from error
