"""Sparse matrices between scipy, the baselines and the file format of the Extreme Classification Repository."""

from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
from scipy.sparse import csr_array

from tagbus.models.baselines.base import Found, Titles, empty
from tagbus.models.data.truth import Truth

Sparse: TypeAlias = "csr_array"


def matrix_of(truth: Truth, tags: int) -> Sparse:
    """Right tags as a matrix of ones, float32 [n, tags]."""
    return csr_array((np.ones(len(truth.tags), np.float32), truth.tags, truth.starts), shape=(len(truth), tags))


def rows_of(features: Sparse) -> list[tuple[list[int], list[float]]]:
    """The columns and values of each row."""
    bounds = features.indptr.tolist()
    columns, values = features.indices.tolist(), features.data.tolist()
    return [(columns[a:b], values[a:b]) for a, b in pairwise(bounds)]


def from_rows(scores: Sparse, best: int) -> Found:
    """The best entries of each row of a sparse score matrix."""
    indices, found = empty(scores.shape[0], best)
    for row in range(scores.shape[0]):
        some = slice(scores.indptr[row], scores.indptr[row + 1])
        order = np.argsort(-scores.data[some], kind="stable")[:best]
        indices[row, : len(order)] = scores.indices[some][order]
        found[row, : len(order)] = scores.data[some][order]
    return indices, found


def write_xmc(path: Path, features: Sparse, titles: Titles) -> None:
    """Write the sparse format of the Extreme Classification Repository. Contents without a word are left out."""
    rows = rows_of(features)
    kept = [row for row, (words, _) in enumerate(rows) if words]
    with path.open("w", encoding="ascii") as file:
        file.write(f"{len(kept)} {features.shape[1]} {titles.tags}\n")
        for row in kept:
            words = " ".join(f"{word}:{weight:.6g}" for word, weight in zip(*rows[row], strict=True))
            file.write(f"{','.join(map(str, titles.truth[row].tolist()))} {words}\n")
