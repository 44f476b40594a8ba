"""The files of an HNSW index beside the points that it is of, and whether they may be used."""

import errno
import hashlib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from tagbus.stream.errors import shorten
from tagbus.stream.memory.saved import VECTORS

if TYPE_CHECKING:
    from usearch.index import Index

INDEX: Final = "hnsw.usearch"
KEPT: Final = "hnsw.json"


class Kept(BaseModel):
    """`hnsw.json` beside an index: how it was built, the SHA-256 of its vectors and of itself, and the rows apart."""

    model_config = ConfigDict(frozen=True)

    made: str
    vectors: str
    index: str
    apart: tuple[NonNegativeInt, ...]


def keep(folder: Path, index: "Index", made: str, apart: tuple[int, ...]) -> None:
    """Save an index, built as `made` says, beside the points in the folder, which are its. Raises OSError."""
    draft = folder / f".{INDEX}.{uuid.uuid4().hex}"
    try:
        _save(index, draft)
        kept = _described(folder / VECTORS, draft, made, apart)
        draft.replace(folder / INDEX)
        (folder / KEPT).write_text(kept.model_dump_json() + "\n", encoding="utf-8")
    finally:
        draft.unlink(missing_ok=True)


def kept(folder: Path, made: str) -> Kept | None:
    """What the folder says of its index, if the index matches the vectors beside it, is whole, and is built so."""
    try:
        found = Kept.model_validate_json((folder / KEPT).read_bytes())
        return found if found == _described(folder / VECTORS, folder / INDEX, made, found.apart) else None
    except (OSError, ValidationError):
        return None


def _save(index: "Index", path: Path) -> None:
    """Raises OSError."""
    try:
        index.save(str(path))
    except RuntimeError as error:
        raise OSError(errno.EIO, shorten(str(error), 200), str(path)) from None


def _described(vectors: Path, index: Path, made: str, apart: tuple[int, ...]) -> Kept:
    """How this process describes those files. Raises OSError."""
    return Kept(made=made, vectors=_digest(vectors), index=_digest(index), apart=apart)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
