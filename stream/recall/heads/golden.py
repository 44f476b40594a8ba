"""The questions of classifier heads, whose golden answers heads.json has.

They are generated, not stored: a few bags of terms and unit vectors, the same for all heads with the same number of
terms and dimension.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.memory.store import Vectors
from tagbus.stream.recall.classifier.golden import QUESTIONS

# Terms per question: the smallest padded length. The first question has none.
LENGTH: Final = 8

Terms = NDArray[np.int64]
Weights = NDArray[np.float32]


def questions(terms: int, dimension: int) -> tuple[Terms, Weights, Vectors]:
    """Terms int64 [4, 8] below `terms`, weights float32 [4, 8], unit vectors float32 [4, dimension]."""
    numbers = (np.arange(QUESTIONS * LENGTH).reshape(QUESTIONS, LENGTH) * 7919) % terms
    weights = np.full(numbers.shape, LENGTH**-0.5, np.float32)
    weights[0] = 0
    # Squares as angles: close to random, and identical on every platform with a cosine.
    vectors = np.cos(np.arange(1.0, QUESTIONS * dimension + 1).reshape(QUESTIONS, dimension) ** 2)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return numbers.astype(np.int64), weights, vectors.astype(np.float32)
