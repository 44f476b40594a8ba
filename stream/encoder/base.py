"""What an encoder is: texts in, unit vectors out."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.encoder.release import Release

Vectors = NDArray[np.float32]


class Encoder(Protocol):
    """Texts to vectors. Several calls may run at once."""

    @property
    def release(self) -> Release:
        """What the vectors are of: the name that stands in every result and on every store."""

    async def encode(self, texts: Sequence[str]) -> Vectors:
        """float32 [n, d] of unit length, in the order of the texts; n may be 0.

        Raises ValueError for a text that cannot be encoded, and Retryable when the encoder does not answer.
        """

    async def close(self) -> None:
        """Free what it holds. No call may be under way."""
