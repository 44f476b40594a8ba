"""Logistic regression by Newton's method: a few columns, many rows. The curve of a calibration, the judge's weight."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.contract.release import LEAST, MOST

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

STEPS: Final = 100
CLOSE: Final = 1e-9
# In units of one pair: it matters only for uninformative columns, and for pairs that a line separates.
RIDGE: Final = 1e-3
MOST_LOGIT: Final = 500.0


def logit(probabilities: Floats) -> Floats:
    """The log odds of probabilities, of the same shape; they are clipped to [1e-4, 1 - 1e-4]."""
    clipped = np.clip(probabilities, LEAST, MOST)
    return np.asarray(np.log(clipped / (1 - clipped)), np.float64)


def sigmoid(logits: Floats) -> Floats:
    """Log odds to probabilities, of the same shape."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -MOST_LOGIT, MOST_LOGIT))), np.float64)


def losses(probabilities: Floats, right: Flags) -> Floats:
    """-log of the probability of the actual outcome, natural logarithm: float64 [n]."""
    given = np.clip(np.where(right, probabilities, 1 - probabilities), LEAST, MOST)
    return np.asarray(-np.log(given), np.float64)


def fit(columns: Floats, target: Floats | Flags, weights: Floats | None = None, ridge: float = RIDGE) -> Floats:
    """Offset and one weight per column, float64 [1 + d], of `columns` float64 [n, d] for `target` [n], the probability
    that a row is right. `weights` float64 [n] of the rows: equal if not given.
    """
    design = np.column_stack((np.ones(len(columns)), columns))
    weights = np.ones(len(columns)) if weights is None else weights
    found = np.zeros(design.shape[1])
    for _ in range(STEPS):
        chance = sigmoid(design @ found)
        gradient = design.T @ (weights * (chance - target)) + ridge * found
        curvature = (design * (weights * chance * (1 - chance))[:, None]).T @ design + ridge * np.eye(len(found))
        step = np.linalg.solve(curvature, gradient)
        # Far from the minimum a whole step may overshoot.
        found = found - step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < CLOSE:
            break
    return found
