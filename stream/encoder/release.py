"""The release: the encoder, tokenizer and template that made a vector, and the defaults fitted to them.

Vectors of different releases are never compared. A release is described by release.json next to the model; its name is
recorded in every result and every store.
"""

import hashlib
import importlib.resources
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from tagbus.stream.contract.release import RecallDefaults as RecallDefaults
from tagbus.stream.contract.release import Release as Release
from tagbus.stream.errors import ReleaseMismatch, shorten

MODEL: Final = "model.onnx"
TOKENIZER: Final = "tokenizer.json"
GOLDEN: Final = "golden.json"
RELEASE: Final = "release.json"


def content_text(title: str, text: str) -> str:
    """The text to encode for a content or an exemplar: the non-empty ones of title and text."""
    return "\n".join(part for part in (title.strip(), text.strip()) if part)


def default_folder() -> Path:
    """The folder of the model shipped in the package."""
    return Path(str(importlib.resources.files("tagbus.triton_repo") / "encoder" / "1"))


def load_release(folder: Path) -> Release:
    """Load the release of `folder` and verify its model, tokenizer and golden texts.

    Raises ReleaseMismatch that names the file, the hash found and the hash expected.
    """
    path = folder / RELEASE
    try:
        release = Release.model_validate_json(_read(path))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise ReleaseMismatch(f"{path}: {field}: {shorten(problem['input'])}: {problem['msg']}") from None
    for name, expected in (
        (MODEL, release.model_sha256),
        (TOKENIZER, release.tokenizer_sha256),
        (GOLDEN, release.golden_sha256),
    ):
        found = sha256(_read(folder / name))
        if found != expected:
            raise ReleaseMismatch(f"{folder / name} has the SHA-256 {found}, but release {release.name} has {expected}")
    return release


def load_recorded(folder: Path, recorded: Release) -> Release:
    """Load the release of `folder` and check it against the one recorded on the topic `releases`.

    Raises ReleaseMismatch that names the differing file, or the field of release.json.
    """
    release = load_release(folder)
    for name, found, expected in (
        (MODEL, release.model_sha256, recorded.model_sha256),
        (TOKENIZER, release.tokenizer_sha256, recorded.tokenizer_sha256),
        (GOLDEN, release.golden_sha256, recorded.golden_sha256),
    ):
        if found != expected:
            raise ReleaseMismatch(
                f"{folder / name} has the SHA-256 {found}, but release {recorded.name} was recorded with {expected}"
            )
    for field in Release.model_fields:
        found, expected = getattr(release, field), getattr(recorded, field)
        if found != expected:
            raise ReleaseMismatch(
                f"{folder / RELEASE}: {field}: {shorten(found)}, but release {recorded.name} was recorded with "
                f"{shorten(expected)}"
            )
    return release


def sha256(content: bytes) -> str:
    """As in release.json: 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReleaseMismatch(
            f"{path}: {error.strerror}; expected {MODEL}, {TOKENIZER}, {GOLDEN} and {RELEASE}"
        ) from None
