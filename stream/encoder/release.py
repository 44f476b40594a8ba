"""The release: which encoder, tokenizer and template made a vector, and the defaults that were fitted to them.

Vectors of two releases are never compared. The release is described by release.json beside the model, and its name
stands in every result and on every store.
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
    """The text by which a content or an exemplar is encoded: its title and its text, whichever is there."""
    return "\n".join(part for part in (title.strip(), text.strip()) if part)


def default_folder() -> Path:
    """The model that travels in the package."""
    return Path(str(importlib.resources.files("tagbus.triton_repo") / "encoder" / "1"))


def load_release(folder: Path) -> Release:
    """The release that `folder` holds, its model, tokenizer and golden texts verified.

    Raises ReleaseMismatch that names the file, and the hash found beside the hash expected.
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
    """The release that `folder` holds, if it is the one that the topic `releases` records.

    Raises ReleaseMismatch that names the file that differs, or the field of release.json.
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
    """As release.json writes it: 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReleaseMismatch(
            f"{path}: {error.strerror}; expected {MODEL}, {TOKENIZER}, {GOLDEN} and {RELEASE}"
        ) from None
