"""The release: which encoder, tokenizer and template made a vector, and the defaults that were fitted to them.

Vectors of two releases are never compared. The release is described by release.json beside the model, and its name
stands in every result and on every store.
"""

import hashlib
import importlib.resources
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from tagbus.stream.errors import ReleaseMismatch, shorten

MODEL: Final = "model.onnx"
TOKENIZER: Final = "tokenizer.json"
RELEASE: Final = "release.json"
FIELD: Final = re.compile(r"(\{(?:name|aliases|description)\})")

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


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
    """One immutable set of encoder, tokenizer, template and fitted defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")
    encoder: str = Field(description="the model that was exported")
    model_sha256: Sha256
    tokenizer_sha256: Sha256
    precision: Literal["float32", "float16", "int8"] = Field(description="of the weights in the file")
    dimension: int = Field(ge=1)
    max_tokens: int = Field(ge=3, description="tokens of a text that are read, [CLS] and [SEP] among them")
    tag_template: str = "{name}\n{aliases}\n{description}"
    recall: RecallDefaults = Field(default_factory=RecallDefaults.model_construct)

    def tag_text(self, name: str, aliases: Sequence[str] = (), description: str = "") -> str:
        """The text by which a tag is encoded: the template, without the lines that stay empty.

        A value goes in once and is not looked at again, so braces in a tag's name are nothing but braces.
        """
        values = {"{name}": name, "{aliases}": ", ".join(aliases), "{description}": description}
        lines = (
            "".join(values.get(part, part) for part in FIELD.split(line)).strip()
            for line in self.tag_template.split("\n")
        )
        return "\n".join(line for line in lines if line)


def content_text(title: str, text: str) -> str:
    """The text by which a content or an exemplar is encoded: its title and its text, whichever is there."""
    return "\n".join(part for part in (title.strip(), text.strip()) if part)


def default_folder() -> Path:
    """The model that travels in the package."""
    return Path(str(importlib.resources.files("tagbus.triton_repo") / "encoder" / "1"))


def load_release(folder: Path) -> Release:
    """The release that `folder` holds, its model and tokenizer verified.

    Raises ReleaseMismatch that names the file, and the hash found beside the hash expected.
    """
    path = folder / RELEASE
    try:
        release = Release.model_validate_json(_read(path))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise ReleaseMismatch(f"{path}: {field}: {shorten(problem['input'])}: {problem['msg']}") from None
    for name, expected in ((MODEL, release.model_sha256), (TOKENIZER, release.tokenizer_sha256)):
        found = sha256(_read(folder / name))
        if found != expected:
            raise ReleaseMismatch(f"{folder / name} has the SHA-256 {found}, but release {release.name} has {expected}")
    return release


def sha256(content: bytes) -> str:
    """As release.json writes it: 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReleaseMismatch(f"{path}: {error.strerror}; expected {MODEL}, {TOKENIZER} and {RELEASE}") from None
