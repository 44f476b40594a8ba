"""The folder of an embedded store: one opener, one release, and a shard that is whole or absent."""

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tagbus.stream.errors import UserError, shorten
from tagbus.stream.memory.checks import Description
from tagbus.stream.memory.qdrant.engine import SCOPES
from tagbus.stream.memory.qdrant.payloads import PayloadFile
from tagbus.stream.memory.validity import FROM, UNTIL

if TYPE_CHECKING:
    import qdrant_edge

LOCK: Final = "lock"
SHARD: Final = "shard"
PAYLOADS: Final = "payloads.sqlite"


@dataclass(frozen=True, slots=True)
class Opened:
    """A shard and the lock on its folder; unwinding `held` releases it."""

    shard: "qdrant_edge.EdgeShard"
    payloads: PayloadFile
    folder: Path
    held: ExitStack


def open_folder(folder: Path, description: Description, held: ExitStack) -> Opened:
    """Open the store in a folder, or create one. Raises as `EmbeddedStore.open` does."""
    try:
        import qdrant_edge  # noqa: F401
    except ImportError:
        raise UserError("the embedded store needs qdrant-edge: pip install 'tagbus[embedded]'") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _lock(folder, held)
        if all(path.name == LOCK for path in folder.iterdir()):
            description.write(folder)
    except OSError as error:
        raise UserError(f"{folder} is not a writable folder: {error.strerror}") from None
    Description.read(folder).match(f"the store in {folder}", description.release, description.dimension)
    try:
        return Opened(_shard(folder, description.dimension), PayloadFile(folder / PAYLOADS), folder, held)
    except Exception as error:
        raise UserError(f"the store in {folder} cannot be opened: {shorten(str(error), 200)}") from error


def _shard(folder: Path, dimension: int) -> "qdrant_edge.EdgeShard":
    """Create the shard aside and rename it: a process killed midway leaves no partial shard."""
    import qdrant_edge

    shard, draft = folder / SHARD, folder / f"{SHARD}.new"
    if not shard.exists():
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        vectors = qdrant_edge.EdgeVectorParams(size=dimension, distance=qdrant_edge.Distance.Cosine)
        qdrant_edge.EdgeShard.create(str(draft), qdrant_edge.EdgeConfig(vectors=vectors)).close()
        draft.rename(shard)
    opened = qdrant_edge.EdgeShard.load(str(shard))
    kinds = qdrant_edge.PayloadSchemaType
    known = opened.info().payload_schema
    for field, kind in {SCOPES: kinds.Keyword, FROM: kinds.Integer, UNTIL: kinds.Integer}.items():
        if field not in known:
            opened.update(qdrant_edge.UpdateOperation.create_field_index(field, kind))
    return opened


def _lock(folder: Path, held: ExitStack) -> None:
    """Lock the folder for one opener. The lock ends with its process, however that ends."""
    import fcntl

    file = held.enter_context((folder / LOCK).open("wb"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"the store in {folder} is open already, here or in another process") from None
