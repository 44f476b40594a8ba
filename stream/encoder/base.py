"""The encoder interface: texts in, unit vectors out."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.encoder.release import Release

Vectors = NDArray[np.float32]


class Encoder(Protocol):
    """Encodes texts as vectors. Several calls may run concurrently."""

    @property
    def release(self) -> Release:
        """The release of the vectors: its name is recorded in every result and every store."""

    async def encode(self, texts: Sequence[str]) -> Vectors:
        """float32 [n, d] of unit length, in the order of the texts; n may be 0.

        Raises ValueError for a text that cannot be encoded, and Retryable if the encoder does not answer.
        """

    async def close(self) -> None:
        """Free resources. No call may be in flight."""
