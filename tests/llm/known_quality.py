"""A judge of known quality: scores of right and wrong tags are normal, at the distance that gives the stated AUC."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from tagbus.stream.llm.worth.fusion import Pairs
from tagbus.stream.logistic import Flags, Floats, sigmoid

STANDARD = NormalDist()


@dataclass(frozen=True, slots=True)
class ScriptedJudge:
    """`auc` without its bias. `bias`: the gain of the tag shown first, in standard deviations. It states odds that are
    `sharp` times too extreme."""

    auc: float
    bias: float = 0.0
    sharp: float = 2.0

    @property
    def distance(self) -> float:
        """The distance between the means of right and wrong tags, in standard deviations."""
        return math.sqrt(2) * STANDARD.inv_cdf(self.auc)

    def hears(self, right: Flags, first: Flags, rng: np.random.Generator) -> Floats:
        """Its signal for each tag."""
        return self.distance * (right - 0.5) + self.bias * first + rng.standard_normal(len(right))

    def says(self, heard: Floats) -> Floats:
        """Its stated probabilities."""
        return sigmoid(self.sharp * max(self.distance, 0.5) * heard)

    def odds(self, heard: Floats, places: int) -> Floats:
        """The true log odds that a tag is right given its signal, with even prior odds, one of `places` shown first."""
        share = 1 / places

        def density(mean: float) -> Floats:
            plain = np.exp(-((heard - mean) ** 2) / 2)
            moved = np.exp(-((heard - mean - self.bias) ** 2) / 2)
            return (1 - share) * plain + share * moved

        return np.log(density(self.distance / 2) / density(-self.distance / 2))


@dataclass(frozen=True, slots=True)
class Ranked:
    """Candidates of contents from an informative ranker: score, right, content, shown first, [n] each."""

    score: Floats
    right: Flags
    content: np.ndarray
    first: Flags

    def judged(self, probability: Floats) -> Pairs:
        """With a judge's probabilities."""
        return Pairs(self.score, probability, self.right, self.content)


def ranked(contents: int, places: int, rng: np.random.Generator) -> Ranked:
    """Some 15% of the candidates are right, and the ranker's AUC is 0.8."""
    pairs = contents * places
    right = rng.random(pairs) < 0.15
    score = sigmoid(1.2 * right - 2 + rng.standard_normal(pairs))
    first = np.zeros((contents, places), np.bool_)
    first[np.arange(contents), rng.integers(places, size=contents)] = True
    return Ranked(score, right, np.repeat(np.arange(contents), places), first.ravel())


def auc(score: Floats, right: Flags) -> float:
    """By ranks, ties by half."""
    _, number, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[number]
    rights = int(right.sum())
    return float((ranks[right].sum() - rights * (rights + 1) / 2) / (rights * (len(right) - rights)))
