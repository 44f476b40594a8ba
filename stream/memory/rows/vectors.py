"""Vectors by row, in slabs of 32,768 rows, so that growing copies nothing: 328,152 rows of 384 dimensions are 0.5 GB
and never a moment more."""

import mmap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from tagbus.stream.memory.hits import Ints
from tagbus.stream.memory.rows.files import unnamed
from tagbus.stream.memory.store import Vectors

SLAB: Final = 32_768


class VectorRows:
    """Vectors float32 [n, d] in memory, or in files in a folder that are mapped into memory."""

    def __init__(self, dimension: int, folder: Path | None) -> None:
        self._dimension = dimension
        self._folder = folder
        self._slabs: list[Vectors] = []

    def reserve(self, rows: int) -> None:
        """Make room for this many rows. Raises DependencyDown if the disk has none."""
        while len(self._slabs) * SLAB < rows:
            self._slabs.append(self._slab())

    def release(self, rows: int) -> None:
        """Free the room beyond this many rows. One empty slab stays, or a count that goes up and down across an edge
        would allocate each time."""
        del self._slabs[rows // SLAB + 2 :]

    def put(self, rows: Ints, vectors: Vectors) -> None:
        """Set the vectors of these rows."""
        for slab in np.unique(rows // SLAB):
            here = rows // SLAB == slab
            self._slabs[slab][rows[here] % SLAB] = vectors[here]

    def move(self, source: int, row: int) -> None:
        """Copy the vector of one row to another."""
        self._slabs[row // SLAB][row % SLAB] = self._slabs[source // SLAB][source % SLAB]

    def pieces(self, rows: int, size: int) -> Iterator[tuple[int, Vectors]]:
        """The first `rows` rows in pieces of at most `size`, which divides a slab: the number of a piece's first row,
        and its vectors, not copied."""
        for first in range(0, rows, size):
            start = first % SLAB
            yield first, self._slabs[first // SLAB][start : start + min(size, rows - first)]

    def gather(self, rows: Ints) -> Vectors:
        """The vectors of rows in ascending order, float32 [n, d]."""
        vectors = np.empty((len(rows), self._dimension), np.float32)
        edges = np.searchsorted(rows, SLAB * np.arange(len(self._slabs) + 1)).tolist()
        for slab, (start, end) in enumerate(pairwise(edges)):
            if start < end:
                # No row is out of bounds; without a mode take() checks first and fills a copy.
                self._slabs[slab].take(rows[start:end] - slab * SLAB, axis=0, out=vectors[start:end], mode="clip")
        return vectors

    def _slab(self) -> Vectors:
        if self._folder is None:
            return np.empty((SLAB, self._dimension), np.float32)
        size = 4 * SLAB * self._dimension
        with unnamed(self._folder, size) as file:
            mapped = mmap.mmap(file.fileno(), size)
        # A search reads a hundred rows here and there: to read the rows around each would be in vain.
        mapped.madvise(mmap.MADV_RANDOM)
        return np.frombuffer(mapped, np.float32).reshape(SLAB, self._dimension)
