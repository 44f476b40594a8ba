"""The files of a saved store: `vectors.npy`, float32 [n, d], `points.jsonl`, a key and a payload a line, and
`store.json`."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from pydantic_core import from_json, to_json

from tagbus.stream.errors import UserError, shorten
from tagbus.stream.memory.checks import Batch, Description, check_stored
from tagbus.stream.memory.store import Vectors

VECTORS: Final = "vectors.npy"
POINTS: Final = "points.jsonl"
# Points read at a time.
CHUNK: Final = 4_096


def write(
    folder: Path, description: Description, points: Iterable[tuple[str, bytes]], vectors: Iterable[Vectors]
) -> None:
    """Write keys with their payloads as JSON, and their vectors piece by piece, into an empty folder."""
    with (folder / VECTORS).open("wb") as file:
        shape = (description.count, description.dimension)
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for some in vectors:
            file.write(some.astype("<f4", copy=False).data)
    with (folder / POINTS).open("wb") as file:
        for key, body in points:
            file.write(b"[" + to_json(key) + b"," + body + b"]\n")
    description.write(folder)


def read(folder: Path, release: str, dimension: int) -> Iterator[Batch]:
    """Read the points that `write` wrote, some thousands at a time, in the form of an upsert.

    Raises UserError if there are none or they are damaged, ReleaseMismatch if they have another release; damage that
    shows at the end is raised after the last points.
    """
    description = Description.read(folder)
    description.match(str(folder), release, dimension)
    try:
        with (folder / VECTORS).open("rb") as vectors, (folder / POINTS).open("rb") as lines:
            shape = _header(vectors)
            for first in range(0, shape[0], CHUNK):
                size = min(CHUNK, shape[0] - first) * dimension
                rows = np.fromfile(vectors, "<f4", size).astype(np.float32, copy=False)
                pairs = [_pair(next(lines)) for _ in range(size // dimension)]
                batch = Batch([key for key, _ in pairs], rows.reshape(-1, dimension), [body for _, body in pairs])
                check_stored(batch)
                yield batch
            if shape != (description.count, dimension) or next(lines, None) is not None:
                raise ValueError(f"{shape} vectors, expected {description.count}, each with a line")
    except (OSError, ValueError, TypeError, StopIteration) as error:
        raise damaged(folder, error) from None


def damaged(folder: Path, error: Exception) -> UserError:
    """The error for a folder whose points cannot be used."""
    return UserError(f"the store in {folder} is damaged; delete it and let it be rebuilt ({shorten(str(error))})")


def swap(draft: Path, folder: Path) -> None:
    """Replace the folder with the draft; an existing folder is deleted only afterwards."""
    if not folder.exists():
        draft.rename(folder)
        return
    old = draft.with_name(f"{draft.name}.old")
    folder.rename(old)
    draft.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _pair(line: bytes) -> tuple[str, bytes]:
    """Key and payload of a line; the payload stays as it was written. Raises ValueError for any other line."""
    match from_json(line, allow_inf_nan=False):
        case [str(key), {}]:
            start = len(to_json(key)) + 2
            if line[start - 1 : start + 1] == b",{" and line.endswith(b"}]\n"):
                return key, line[start:-2]
    raise ValueError(f"{shorten(line.decode(errors='replace'))} is not a point")


def _header(file: BinaryIO) -> tuple[int, ...]:
    """The shape of the float32 matrix that follows. Raises ValueError for a file of another kind."""
    np.lib.format.read_magic(file)
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype != np.dtype("<f4") or by_columns or len(shape) != 2:
        raise ValueError(f"{dtype} {list(shape)}, expected a float32 matrix")
    return shape
