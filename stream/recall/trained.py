"""The folder of a trained artifact: a manifest, and the files whose hashes it lists."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, ValidationError

from tagbus.stream.encoder.release import sha256
from tagbus.stream.errors import ReleaseMismatch, UserError, shorten

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Trained:
    """A folder, the file name of its manifest, and the command that writes both."""

    folder: Path
    manifest: str
    command: str

    def about(self, model: type[M], most: int) -> M:
        """Read the manifest, at most `most` bytes. Raises UserError that names the file, the field and the expected
        value."""
        try:
            return model.model_validate_json(self.read(self.manifest, most))
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in problem["loc"]) or "the file"
            path = self.folder / self.manifest
            raise UserError(f"{path}: {field}: {shorten(problem['input'])}: {problem['msg']}") from None

    def verified(self, name: str, expected: str, most: int) -> bytes:
        """Read a file and check its hash against the manifest. Raises as `read` does, and ReleaseMismatch on a
        difference."""
        content = self.read(name, most)
        if (found := sha256(content)) != expected:
            raise ReleaseMismatch(f"{self.folder / name} has the SHA-256 {found}, but {self.manifest} says {expected}")
        return content

    def read(self, name: str, most: int) -> bytes:
        """Read a file of at most `most` bytes. Raises UserError if it is larger or cannot be read."""
        path = self.folder / name
        try:
            with path.open("rb") as file:
                content = file.read(most + 1)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); expected a file of `{self.command}`") from None
        if len(content) > most:
            raise UserError(f"{path}: more than {most} bytes, expected a file of `{self.command}`")
        return content
