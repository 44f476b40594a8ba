"""Input checks that all stores share, so that they all refuse the same.

An engine may accept a vector that is not finite and then find nothing (qdrant-edge 0.9 does), or break on a payload
that is not JSON, so everything is checked here before the first point of a batch is stored.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from pydantic_core import from_json

from tagbus.stream.errors import ReleaseMismatch, UserError, shorten
from tagbus.stream.memory.store import Payload, Point, Scopes, Vectors

# Qdrant's JSON reader gives up at 128 levels, pydantic's at 200.
PAYLOAD_DEPTH = 64
# Half-precision arithmetic on a GPU leaves a unit vector within about 0.001 of length 1.
LENGTH_TOLERANCE = 0.01
DESCRIPTION = "store.json"


@dataclass(frozen=True, slots=True)
class Batch:
    """Points that passed the checks: each key once (the last one given), vectors float32 [n, d], payloads as JSON."""

    keys: list[str]
    vectors: Vectors
    bodies: list[bytes]


def checked(points: Sequence[Point], dimension: int) -> Batch:
    """Check the points of one upsert.

    Raises ValueError that names the key for a vector that is not float32 of length d, finite and of unit length, for a
    payload that is not JSON or nests deeper than 64 levels, and for a key that is not UTF-8.
    """
    last = {point.key: point for point in points}
    for key, point in last.items():
        key.encode()
        if point.vector.shape != (dimension,) or point.vector.dtype != np.float32:
            found = f"{point.vector.dtype} {list(point.vector.shape)}"
            raise ValueError(f"the vector of {shorten(key)} is {found}, expected float32 [{dimension}]")
    vectors = np.stack([point.vector for point in last.values()]) if last else np.empty((0, dimension), np.float32)
    wrong = _not_unit(vectors)
    keys = list(last)
    if wrong is not None:
        raise ValueError(f"the vector of {shorten(keys[wrong])} {_fault(vectors[wrong])}")
    return Batch(keys, vectors, [encode(key, point.payload) for key, point in last.items()])


def check_stored(batch: Batch) -> None:
    """Raises ValueError for points, read from a file as JSON, that `checked` would not return."""
    if len(set(batch.keys)) < len(batch.keys):
        raise ValueError("a key comes twice")
    wrong = _not_unit(batch.vectors)
    if wrong is not None:
        raise ValueError(f"the vector of {shorten(batch.keys[wrong])} {_fault(batch.vectors[wrong])}")
    for key, body in zip(batch.keys, batch.bodies, strict=True):
        _check_depth(key, body)


def check_queries(queries: Vectors, dimension: int, limit: int, scopes: Scopes) -> None:
    """Raises ValueError for queries that are not float32 [n, d], finite and of unit length, for a limit below 1, and
    for scopes that are not one set a query."""
    if limit < 1:
        raise ValueError(f"limit is {limit}, expected at least 1")
    if queries.ndim != 2 or queries.shape[1] != dimension or queries.dtype != np.float32:
        raise ValueError(f"queries are {queries.dtype} {list(queries.shape)}, expected float32 [n, {dimension}]")
    if scopes is not None and len(scopes) != len(queries):
        raise ValueError(f"{len(queries)} queries and {len(scopes)} sets of scopes, expected one a query")
    wrong = _not_unit(queries)
    if wrong is not None:
        raise ValueError(f"query {wrong} {_fault(queries[wrong])}")


def encode(key: str, payload: Payload) -> bytes:
    """Serialize a payload as JSON. Raises ValueError if that fails."""
    try:
        body = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the payload of {shorten(key)} is not JSON: {shorten(str(error))}") from None
    _check_depth(key, body)
    return body


def decode(body: bytes) -> dict[str, JsonValue]:
    """Parse a payload that `encode` wrote."""
    payload: dict[str, JsonValue] = from_json(body)
    return payload


def _check_depth(key: str, body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") > PAYLOAD_DEPTH and _depth(body) > PAYLOAD_DEPTH:
        raise ValueError(f"the payload of {shorten(key)} nests deeper than {PAYLOAD_DEPTH} levels")


def _not_unit(vectors: Vectors) -> int | None:
    """The first row that is not of unit length; one that is not finite is not of unit length either."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
        wrong = np.flatnonzero(~(np.abs(lengths - 1) <= LENGTH_TOLERANCE))
    return int(wrong[0]) if len(wrong) else None


def _fault(vector: NDArray[np.float32]) -> str:
    if not np.isfinite(vector).all():
        return "is not finite"
    return f"has length {np.linalg.norm(vector.astype(np.float64)):.4g}, expected 1"


def _depth(body: bytes) -> int:
    """The nesting depth of JSON; brackets inside strings do not count."""
    depth = deepest = 0
    text = escaped = False
    for char in body.decode():
        if text:
            text, escaped = escaped or char != '"', char == "\\" and not escaped
        elif char == '"':
            text = True
        elif char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


class Description(BaseModel):
    """`store.json` in a store's folder: the release and the form of its points."""

    model_config = ConfigDict(frozen=True)

    release: str
    dimension: int
    count: int | None = None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises UserError if the folder has no store."""
        file = folder / DESCRIPTION
        try:
            return cls.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            raise UserError(f"{folder} holds no store of tagbus: there is no {DESCRIPTION} in it") from None
        except (ValidationError, OSError) as error:
            raise UserError(f"{file} cannot be read: {shorten(str(error), 200)}; delete {folder}") from None

    def write(self, folder: Path) -> None:
        """Write it into the folder, atomically."""
        draft = folder / f"{DESCRIPTION}.new"
        draft.write_text(self.model_dump_json(exclude_none=True), encoding="utf-8")
        draft.replace(folder / DESCRIPTION)

    def match(self, place: str, release: str, dimension: int) -> None:
        """Raises ReleaseMismatch unless the store at `place` has this release and dimension."""
        if self.release != release:
            raise ReleaseMismatch(
                f"{place} was made by release {shorten(self.release)}, this process runs {shorten(release)}; "
                f"delete it and let it be rebuilt, or run the release that made it"
            )
        if self.dimension != dimension:
            raise ReleaseMismatch(
                f"{place} holds vectors of {self.dimension} dimensions, release {shorten(release)} makes {dimension}; "
                f"delete it and let it be rebuilt"
            )
