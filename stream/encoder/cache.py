"""An LRU cache of vectors by text.

It is client-side because Triton's own response cache keys on whole requests: the same text in another batch, or padded
to another length, would not hit.
"""

import hashlib
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


class VectorCache:
    """The `most` vectors used most recently; 10,000 with 384 dimensions take about 18 MB, however long the texts
    are."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._vectors: OrderedDict[bytes, Vector] = OrderedDict()

    def get(self, text: str) -> Vector | None:
        """The cached vector of a text, or None. Raises UnicodeEncodeError for a text with lone surrogates."""
        key = _key(text)
        vector = self._vectors.get(key)
        if vector is not None:
            self._vectors.move_to_end(key)
        return vector

    def put(self, text: str, vector: Vector) -> None:
        """Store a copy of the vector, and evict the least recently used one."""
        self._vectors[_key(text)] = vector.copy()
        while len(self._vectors) > self._most:
            self._vectors.popitem(last=False)

    def __len__(self) -> int:
        return len(self._vectors)


def _key(text: str) -> bytes:
    # 128 bits: among a billion texts a collision has a probability of 1e-21.
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
