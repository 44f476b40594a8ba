"""TF-IDF features, and a baseline on them: votes of the nearest training titles."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.sparse import csr_array

from tagbus.models.baselines.base import Found, Titles
from tagbus.models.baselines.sparse import Sparse, from_rows, matrix_of

# A word in a single title carries no information about other titles.
LEAST_TITLES: Final = 2


class TfIdf:
    """TF-IDF vectors of unit length, float32 [n, words]."""

    def __init__(self) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._made = TfidfVectorizer(min_df=LEAST_TITLES, dtype=np.float32)

    def learn(self, texts: Sequence[str]) -> Sparse:
        """Fit the vocabulary to the texts and return their features."""
        return csr_array(self._made.fit_transform(texts))

    def of(self, texts: Sequence[str]) -> Sparse:
        """Features of other texts."""
        return csr_array(self._made.transform(texts))


class Neighbours:
    """Tags of the nearest titles by TF-IDF; a vote is weighted by the softmax of the title's cosine."""

    def __init__(self, near: int = 100, tau: float = 0.1) -> None:
        self._near = near
        self._tau = tau
        self._words = TfIdf()

    def train(self, titles: Titles) -> None:
        """Build the index; nothing else is trained."""
        self._titles = csr_array(self._words.learn(titles.texts).T)
        self._right = matrix_of(titles.truth, titles.tags)

    def predict(self, texts: Sequence[str], best: int) -> Found:
        """See Baseline."""
        # 64 rows of cosines to 328,152 titles are 84 MB.
        parts = [self._some(texts[start : start + 64], best) for start in range(0, len(texts), 64)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _some(self, texts: Sequence[str], best: int) -> Found:
        cosines = (self._words.of(texts) @ self._titles).toarray()
        near = min(self._near, cosines.shape[1])
        nearest = np.argpartition(-cosines, near - 1, axis=1)[:, :near]
        likeness = np.take_along_axis(cosines, nearest, axis=1)
        weights = np.exp((likeness - likeness.max(axis=1, keepdims=True)) / self._tau)
        weights /= weights.sum(axis=1, keepdims=True)
        starts = np.arange(0, nearest.size + 1, near)
        votes = csr_array((weights.ravel(), nearest.ravel(), starts), shape=cosines.shape)
        return from_rows(votes @ self._right, best)
