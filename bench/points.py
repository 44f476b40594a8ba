"""Vectors for the measurements of memory: real ones and copies, or clusters; and the expected results of searches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.memory import Vectors

DIMENSION = 384
CHUNK = 4_096
QUERIES = 256
TOP = 20
CENTRES = 2_000
NOISE = 0.02
SHARES = (0.5, 0.25, 0.05, 0.01)

# The points that a filter passes, bool [n].
Passed = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Points and queries of one kind in files: `vectors` float32 [count, 384], the first `real` of real texts."""

    vectors: Path
    queries: Path
    count: int
    real: int

    def chunks(self) -> Iterator[tuple[int, Vectors]]:
        """Read, not mapped: pages of a mapping would count as the store's memory."""
        with self.vectors.open("rb") as file:
            for first in range(0, self.count, CHUNK):
                rows = np.fromfile(file, np.float32, min(CHUNK, self.count - first) * DIMENSION)
                yield first, rows.reshape(-1, DIMENSION)


def unit(rows: NDArray[np.floating]) -> Vectors:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def corpus(folder: Path, name: str, count: int, given: Sequence[Path]) -> Corpus:
    """Write the files unless an earlier run did. The last 256 of the given vectors are the queries."""
    rng = np.random.default_rng(0)
    real = np.concatenate([np.load(path) for path in given]).astype(np.float32) if given else np.zeros((0, DIMENSION))
    source = real if given else unit(rng.normal(size=(CENTRES + QUERIES, DIMENSION)))
    queries, source = source[-QUERIES:], source[:-QUERIES]
    if not given:
        # From the clusters, since a content is near others.
        queries = unit(source[rng.integers(len(source), size=QUERIES)] + NOISE * rng.normal(size=queries.shape))
    found = Corpus(folder / f"{name}-{count}.f32", folder / f"{name}-{count}-queries.npy", count, 0)
    kept = min(count, len(source)) if given else 0
    if not found.queries.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with found.vectors.open("wb") as file:
            source[:kept].astype(np.float32).tofile(file)
            for first in range(kept, count, CHUNK):
                copies = rng.integers(len(source), size=min(CHUNK, count - first))
                unit(source[copies] + NOISE * rng.normal(size=(len(copies), DIMENSION))).tofile(file)
        np.save(found.queries, queries)
    return Corpus(found.vectors, found.queries, count, kept)


def members(one: Corpus) -> dict[str, Passed]:
    """Return the points that each filter passes, by the name of its scope."""
    centre = next(one.chunks())[1][7]
    nearest = np.concatenate([rows @ centre for _, rows in one.chunks()])
    place = {
        "at random": np.random.default_rng(1).permutation(one.count),
        "nearest to one": np.argsort(np.argsort(-nearest)),
    }
    return {f"{how} {share}": ranks < share * one.count for how, ranks in place.items() for share in SHARES}


def nearest_20(one: Corpus, seen: Passed | None) -> list[set[str]]:
    """Return the keys of the 20 nearest points of each query, by comparing all points."""
    queries = np.load(one.queries)
    scores, rows = np.full((len(queries), TOP), -2.0, np.float32), np.zeros((len(queries), TOP), np.int64)
    for first, vectors in one.chunks():
        here = np.arange(len(vectors)) if seen is None else np.flatnonzero(seen[first : first + len(vectors)])
        both = np.hstack((scores, queries @ vectors[here].T))
        numbers = np.hstack((rows, np.broadcast_to(first + here, (len(queries), len(here)))))
        best = np.argpartition(-both, TOP - 1, axis=1)[:, :TOP]
        scores, rows = np.take_along_axis(both, best, 1), np.take_along_axis(numbers, best, 1)
    return [
        {f"k{row}" for row, score in zip(*each, strict=True) if score > -2} for each in zip(rows, scores, strict=True)
    ]
