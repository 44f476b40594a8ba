"""The judge's weight: its logit is fused with that of the prior score by a logistic fit, if that proves to be better.

The prior score (the ranker's, or recall's) becomes a probability by the calibration of the path without the judge. The
judge's probabilities get a separate isotonic curve from 1,000 of them on; with fewer, the logistic fit is their
calibration: offset and slope of a logit are Platt's. The weight is 0 unless the loss of held-out pairs improves beyond
chance. Over good candidates a language model often gains nothing, and then it is not asked.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tagbus.stream import calibrate, logistic
from tagbus.stream.calibrate import Calibration
from tagbus.stream.contract.release import LEAST, MOST, Fingerprint, JudgeFit, Knots
from tagbus.stream.errors import UserError
from tagbus.stream.logistic import Flags, Floats, logit, sigmoid

FOLDS: Final = 5
ISOTONIC_FROM: Final = 1000
# The gain in units of its standard error from which it counts: a judge that knows nothing reaches it in 1 of 40 fits.
STANDARD_ERRORS: Final = 2.0
# The judge must not worsen the newest pairs: its value from before a change no longer counts.
NEWEST: Final = 0.25
# The identity curve.
SAME: Final = Knots(scores=(LEAST, MOST), probabilities=(LEAST, MOST))
# The number of past decisions that an online fit uses.
WINDOW: Final = 2000


@dataclass(frozen=True, slots=True)
class Pairs:
    """Decided pairs of content and tag, oldest first, [n] each.

    `score`: of the stages before the judge. `judge`: its probability, NaN where it is unknown or was not asked.
    `right`: people accept the tag. `content`: a number for each content, whose pairs are adjacent. `weight`: how many
    pairs each represents; None: one.
    """

    score: Floats
    judge: Floats
    right: Flags
    content: NDArray[np.int64]
    weight: Floats | None = None

    def __len__(self) -> int:
        return len(self.score)

    def where(self, rows: Flags) -> "Pairs":
        """Some of the pairs."""
        weight = None if self.weight is None else self.weight[rows]
        return Pairs(self.score[rows], self.judge[rows], self.right[rows], self.content[rows], weight)

    @property
    def weights(self) -> Floats:
        """The weight of each pair, above 0."""
        return np.ones(len(self)) if self.weight is None else self.weight

    def newest(self, count: int) -> "Pairs":
        """The last `count` pairs."""
        return self.where(np.arange(len(self)) >= len(self) - count)


@dataclass(frozen=True, slots=True)
class _Gain:
    """The judge's value on held-out pairs. `without` and `fused`: probabilities [n]."""

    without: Floats
    fused: Floats
    loss_without: float
    loss_with: float
    standard_error: float
    newest: float

    @property
    def proved(self) -> bool:
        gain = self.loss_without - self.loss_with
        return gain > STANDARD_ERRORS * self.standard_error and self.newest > 0


def fits(fit: JudgeFit, backend: str | None) -> bool:
    """Whether it was fitted to answers of this backend, as far as both are known."""
    return fit.backend is None or backend is None or fit.backend == backend


def apply(fit: JudgeFit, score: Floats, judge: Floats) -> Floats:
    """Probabilities of pairs, float64 [n]: where the judge's is NaN, that of the score only."""
    before = _at(fit.before, score)
    known = np.isfinite(judge)
    said = logit(_at(fit.said, judge[known]))
    fused = before.copy()
    fused[known] = sigmoid(fit.offset + fit.slope * logit(before[known]) + fit.weight * said)
    return fused


def fit(pairs: Pairs, fingerprint: Fingerprint, backend: str | None = None) -> Calibration:
    """The calibration of the path with the judge, `fingerprint`: `judge` holds its weight, 0 where it proves no gain.
    `backend`: how it was asked, None if that is unknown.

    Its curve is fitted to fused probabilities of pairs held out from the weight's fit; if it does not improve held-out
    log loss, they are the confidences unchanged. Raises UserError for too few pairs, for pairs that are all right or
    all wrong, and if the judge has answered for too few.
    """
    answered = int(np.isfinite(pairs.judge).sum())
    if answered < calibrate.FEWEST_PAIRS:
        raise UserError(
            f"the judge has a probability for {answered} of {len(pairs)} pairs of content and tag, expected at least "
            f"{calibrate.FEWEST_PAIRS}: see `tagbus check` for what the server answers"
        )
    gain, found = _gain(pairs), _fitted(pairs)
    weight = max(found.weight, 0.0) if gain.proved else 0.0
    losses = {"loss_without": round(gain.loss_without, 6), "loss_with": round(gain.loss_with, 6)}
    scores = gain.fused if weight else gain.without
    curve = calibrate.fit(scores, pairs.right, fingerprint, len(np.unique(pairs.content)), pairs.weights)
    if not _improves(scores, pairs):
        curve = curve.model_copy(update=dict(SAME))
    return calibrate.with_judge(curve, found.model_copy(update={"weight": weight, "backend": backend, **losses}))


def _improves(scores: Floats, pairs: Pairs) -> bool:
    """Whether an isotonic curve lowers the log loss of these probabilities on held-out pairs."""
    curved = np.zeros(len(scores))
    for held_out in _folds(pairs):
        left = pairs.where(~held_out)
        curved[held_out] = _at(calibrate.isotonic(scores[~held_out], left.right, left.weights), scores[held_out])
    after, before = (_mean(logistic.losses(one, pairs.right), pairs.weights) for one in (curved, scores))
    return after < before


def _fitted(pairs: Pairs) -> JudgeFit:
    """A fit to all pairs, not validated yet; its weight may be below 0."""
    before = calibrate.isotonic(pairs.score, pairs.right, pairs.weights)
    asked = pairs.where(np.isfinite(pairs.judge))
    said = _said(asked)
    columns = np.column_stack((logit(_at(before, asked.score)), logit(_at(said, asked.judge))))
    offset, slope, weight = (round(value, 6) for value in logistic.fit(columns, asked.right, asked.weights).tolist())
    found = {"offset": offset, "slope": slope, "weight": weight, "pairs": len(asked)}
    return JudgeFit.model_construct(before=before, said=said, **found)


def _said(asked: Pairs) -> Knots:
    """The judge's own calibration."""
    if len(asked) < ISOTONIC_FROM:
        return SAME
    return calibrate.isotonic(asked.judge, asked.right, asked.weights)


def _at(knots: Knots, values: Floats) -> Floats:
    return np.asarray(np.interp(values, knots.scores, knots.probabilities), np.float64)


def _gain(pairs: Pairs) -> _Gain:
    without, fused = np.zeros(len(pairs)), np.zeros(len(pairs))
    for held_out in _folds(pairs):
        found = _fitted(pairs.where(~held_out))
        left = pairs.where(held_out)
        without[held_out] = apply(found, left.score, np.full(len(left), np.nan))
        fused[held_out] = apply(found, left.score, left.judge)
    before, after = logistic.losses(without, pairs.right), logistic.losses(fused, pairs.right)
    gains, newest = before - after, slice(len(pairs) - max(1, int(len(pairs) * NEWEST)), None)
    return _Gain(
        without,
        fused,
        _mean(before, pairs.weights),
        _mean(after, pairs.weights),
        _error(gains, pairs),
        _mean(gains[newest], pairs.weights[newest]),
    )


def _folds(pairs: Pairs) -> Iterator[Flags]:
    """Contents in five consecutive folds: the pairs of one content are not independent."""
    _, number = np.unique(pairs.content, return_inverse=True)
    part = number * FOLDS // (int(number.max()) + 1)
    for fold in range(FOLDS):
        yield np.asarray(part == fold)


def _mean(values: Floats, weights: Floats) -> float:
    return float((weights * values).sum() / weights.sum())


def _error(gains: Floats, pairs: Pairs) -> float:
    """The standard error of the mean gain, the pairs of a content taken together."""
    _, number = np.unique(pairs.content, return_inverse=True)
    weights = pairs.weights
    sums = np.bincount(number, weights=weights * (gains - _mean(gains, weights)))
    return math.sqrt(float((sums**2).sum())) / float(weights.sum())
