"""Metrics of tags against known ones: P@k, nDCG@k, R@k, PSP@k, F1@k, Acc@k, Coverage@k and HR#k in percent, #Right as a
count, ECE as a fraction. numpy only.

A metric is a ratio of two sums over contents; the per-content terms are kept for `intervals` to resample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.errors import UserError, shorten

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
# The right tags of each content: tag numbers >= 0, unique, in any order.
Truth = Sequence[Ints]

# The figures in their usual notation.
LABELS: Final = {
    "p_at_1": "P@1",
    "p_at_3": "P@3",
    "p_at_5": "P@5",
    "ndcg_at_5": "nDCG@5",
    "r_at_10": "R@10",
    "psp_at_5": "PSP@5",
    "ece": "ECE",
}
BINS = 15


@dataclass(frozen=True, slots=True)
class Ranked:
    """The tags found for n contents, at most k each.

    indices: int64 [n, k], tag numbers, best first; -1 fills the end of a row with fewer than k tags.
    scores: float64 [n, k], their confidences, 0 to 1; ignored where the index is -1.

    Raises ValueError if the shapes differ, a row has a duplicate tag, or a tag follows a -1.
    """

    indices: Ints
    scores: Floats

    def __post_init__(self) -> None:
        if self.indices.ndim != 2 or self.indices.shape != self.scores.shape:
            raise ValueError(
                f"indices {self.indices.shape} and scores {self.scores.shape} must both be of one shape [n, k]"
            )
        if self.indices.size and self.indices.min() < -1:
            raise ValueError("indices: a tag number is 0 or above, or -1 where there is none")
        if ((self.indices[:, 1:] >= 0) & (self.indices[:, :-1] < 0)).any():
            raise ValueError("indices: -1 may only fill the end of a row")
        ordered = np.sort(self.indices, axis=1)
        if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
            raise ValueError("indices: a tag may come only once in a row")


@dataclass(frozen=True, slots=True)
class Quality:
    """The metrics of one evaluation: percent, except `ece`, a fraction of 1."""

    p_at_1: float
    p_at_3: float
    p_at_5: float
    ndcg_at_5: float
    r_at_10: float
    psp_at_5: float
    ece: float


@dataclass(frozen=True, slots=True)
class Parts:
    """What each of n contents contributes to the metrics of `Quality`.

    A metric is the sum of its column of `over`, float64 [n, 6], divided by the sum of that of `under`. ECE: `gaps`,
    float64 [n, bins], are sums of confidence minus right by bin; `tags`, float64 [n], is the number of tags found.
    """

    over: Floats
    under: Floats
    gaps: Floats
    tags: Floats

    def figures(self, times: Floats) -> Floats:
        """float64 [s, 7], the metrics of `Quality` in order, of s samples that contain each content as often as
        `times`, float64 [s, n], says."""
        errors = np.abs(times @ self.gaps).sum(axis=1) / (times @ self.tags)
        return np.column_stack((times @ self.over / (times @ self.under), errors))


def measure(ranked: Ranked, truth: Truth, propensity: Floats) -> Quality:
    """All metrics together; ECE over every tag found.

    `propensity`: float64 [m] for the m tags of the taxonomy, as `propensities` returns it. Raises UserError if a
    content has no right tag or nothing was found for any content.
    """
    made = parts(ranked, truth, propensity)
    return Quality(*made.figures(np.ones((1, len(truth))))[0].tolist())


def parts(ranked: Ranked, truth: Truth, propensity: Floats) -> Parts:
    """What each content contributes to the metrics. Raises as `measure` does."""
    right = hits(ranked, truth)
    lengths = _lengths(truth)
    got, best = _worth(ranked, right, truth, propensity, 5)
    over = (
        *(_first(right, k).sum(axis=1) / k for k in (1, 3, 5)),
        ndcg(right, lengths, 5),
        _first(right, 10).sum(axis=1) / lengths,
        got,
    )
    under = np.ones((len(truth), len(over)))
    under[:, -1] = best
    found = ranked.indices >= 0
    if not found.any():
        raise UserError("no tag was found for any content, so there is no confidence to measure")
    return Parts(100 * np.column_stack(over), under, _gaps(ranked.scores, right, found), found.sum(axis=1) * 1.0)


def precision_at(ranked: Ranked, truth: Truth, k: int) -> float:
    """P@k in percent: right tags among the first k, divided by k even if fewer were found; mean over contents."""
    return 100 * float((_first(hits(ranked, truth), k).sum(axis=1) / k).mean())


def recall_at(ranked: Ranked, truth: Truth, k: int) -> float:
    """R@k in percent: right tags among the first k, divided by the number of right tags; mean over contents."""
    return 100 * float((_first(hits(ranked, truth), k).sum(axis=1) / _lengths(truth)).mean())


def f1_at(ranked: Ranked, truth: Truth, k: int) -> float:
    """F1@k in percent: the harmonic mean of recall and of precision among the tags in the first k ranks, as Annif
    computes it (scikit-learn's average over samples); mean over contents."""
    found = _first(ranked.indices >= 0, k).sum(axis=1)
    return 100 * float((2 * _first(hits(ranked, truth), k).sum(axis=1) / (found + _lengths(truth))).mean())


def ndcg_at(ranked: Ranked, truth: Truth, k: int) -> float:
    """nDCG@k in percent: a right tag at rank i (from 1) gains 1 / log2(i + 1), divided by the gain of min(k, right
    tags) at the first ranks; mean over contents."""
    return 100 * float(ndcg(hits(ranked, truth), _lengths(truth), k).mean())


def ndcg(right: Flags, lengths: Ints, k: int) -> Floats:
    """nDCG@k of each content, a fraction, float64 [n]. `right`: bool [n, k or more], which found tags are right, best
    first; `lengths`: int64 [n], right tags of each, at least 1."""
    right = _first(right, k)
    gains = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(gains)[np.minimum(k, lengths) - 1]
    return np.asarray(right @ gains[: right.shape[1]] / ideal)


def psp_at(ranked: Ranked, truth: Truth, propensity: Floats, k: int) -> float:
    """PSP@k in percent (Jain et al. 2016, KDD, section 3), normalised as in the Extreme Classification Repository.

    Numerator: the sum of 1 / p of the right tags among the first k, over all contents. Denominator: the sum of the k
    largest 1 / p among a content's right tags, over all contents. A ratio of two sums, not a mean of ratios.
    `propensity`: float64 [m]. Raises ValueError if a right tag has no propensity.
    """
    got, best = _worth(ranked, hits(ranked, truth), truth, propensity, k)
    return 100 * float(got.sum() / best.sum())


def acc_at(ranked: Ranked, truth: Truth, k: int) -> float:
    """Acc@k in percent (LLM4Tag, arXiv 2502.13481, section 4.1): right tags among the first k, divided by the number of
    tags there; mean over the contents with a tag. Contents without one count only in Coverage@k.

    Raises UserError if no content has a tag.
    """
    found = _first(ranked.indices >= 0, k).sum(axis=1)
    if not found.any():
        raise UserError("no content got a tag, so there is none to be right; Coverage@1 is 0")
    right = _first(hits(ranked, truth), k).sum(axis=1)
    return 100 * float((right[found > 0] / found[found > 0]).mean())


def coverage_at(ranked: Ranked, k: int) -> float:
    """Coverage@k in percent (LLM4Tag, section 4.1): contents with at least k tags."""
    return 100 * float((_first(ranked.indices >= 0, k).sum(axis=1) == k).mean())


def right_tags(ranked: Ranked, truth: Truth) -> float:
    """#Right (LLM4Tag, section 4.1): right tags among all found, mean over contents; a count."""
    return float(hits(ranked, truth).sum(axis=1).mean())


def hit_rate(ranked: Ranked, truth: Truth, k: int) -> float:
    """HR#k in percent (LLM4Tag, section 4.1): contents with at least k right tags among all found."""
    if k < 1:
        raise ValueError(f"k: {k}, expected at least 1")
    return 100 * float((hits(ranked, truth).sum(axis=1) >= k).mean())


def at_least(ranked: Ranked, confidence: float) -> Ranked:
    """Keep only tags with at least this confidence; later ones move up."""
    kept = (ranked.indices >= 0) & (ranked.scores >= confidence)
    order = np.argsort(~kept, axis=1, kind="stable")
    indices = np.take_along_axis(np.where(kept, ranked.indices, -1), order, axis=1)
    return Ranked(indices, np.take_along_axis(ranked.scores, order, axis=1))


def propensities(counts: Ints, contents: int, a: float = 0.55, b: float = 1.5) -> Floats:
    """The probability that a right tag was annotated, by its frequency (Jain et al. 2016, equation 2).

    p_l = 1 / (1 + C exp(-a log(N_l + b))) with C = (log N - 1) (b + 1)^a; natural logarithms. `counts`: int64 [m], N_l,
    the training contents with each tag; `contents`: N, all training contents. Returns float64 [m] in (0, 1). Raises
    UserError below 3 contents, where C is negative.
    """
    if contents < 3:
        raise UserError(f"contents: {contents} training contents are too few for propensities; at least 3 are needed")
    scale = (np.log(contents) - 1) * (b + 1) ** a
    return np.asarray(1 / (1 + scale * (counts + b) ** -a), dtype=np.float64)


def ece(confidence: Floats, right: Flags, bins: int = BINS) -> float:
    """Expected calibration error, a fraction (Naeini et al. 2015; Guo et al. 2017, equation 3).

    Bins of equal width, closed above, weighted by their counts: sum of count / n * |mean confidence - share right|.
    `confidence`: float64 [n], 0 to 1; `right`: bool [n]. Raises UserError if n is 0, ValueError outside 0 to 1.
    """
    if confidence.shape != right.shape or confidence.ndim != 1:
        raise ValueError(f"confidence {confidence.shape} and right {right.shape} must both be of one shape [n]")
    if not len(confidence):
        raise UserError("no tag was found for any content, so there is no confidence to measure")
    # Negated, so that NaN fails too.
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError(f"confidence: {confidence.min()} to {confidence.max()}, expected 0 to 1")
    gaps = np.bincount(_bins(confidence, bins), weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def hits(ranked: Ranked, truth: Truth) -> Flags:
    """Which of the found tags are right: bool [n, k].

    Raises UserError that names the first content without a right tag, or with a duplicate; ValueError if `truth` does
    not have n contents.
    """
    rows, tags = _pairs(truth)
    if len(truth) != len(ranked.indices):
        raise ValueError(f"truth is of {len(truth)} contents, but {len(ranked.indices)} were tagged")
    # One key per pair of content and tag; -1 must match no tag, nor become one of the previous row.
    width = int(max(tags.max(), ranked.indices.max(initial=0))) + 2
    found = np.arange(len(truth))[:, None] * width + ranked.indices + 1
    return np.isin(found, rows * width + tags + 1)


def _worth(ranked: Ranked, right: Flags, truth: Truth, propensity: Floats, k: int) -> tuple[Floats, Floats]:
    """Per content, the sum of 1 / p of its first k tags, and the largest sum that k tags can reach."""
    rows, tags = _pairs(truth)
    if tags.max() >= len(propensity):
        raise ValueError(f"truth: tag {tags.max()} has no propensity; there are {len(propensity)}")
    worth = 1 / propensity
    # -1 indexes the zero at the end.
    got = (np.append(worth, 0.0)[ranked.indices[:, :k]] * _first(right, k)).sum(axis=1)
    order = np.lexsort((-worth[tags], rows))
    lengths = _lengths(truth)
    # `rows` is sorted, so position minus the row's start is the rank among the row's own tags.
    rank = np.arange(len(tags)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    best = np.bincount(rows[rank < k], weights=worth[tags[order]][rank < k], minlength=len(truth))
    return got, np.asarray(best, np.float64)


def _gaps(confidence: Floats, right: Flags, found: Flags) -> Floats:
    """Per content, the sums of confidence minus right by bin, float64 [n, bins]."""
    if not ((confidence[found] >= 0) & (confidence[found] <= 1)).all():
        raise ValueError("confidence: expected 0 to 1")
    rows, columns = found.nonzero()
    place = rows * BINS + _bins(confidence[rows, columns], BINS)
    gaps = confidence[rows, columns] - right[rows, columns]
    sums = np.bincount(place, weights=gaps, minlength=len(found) * BINS)
    return np.asarray(sums, np.float64).reshape(len(found), BINS)


def _bins(confidence: Floats, bins: int) -> Ints:
    """The bin of each confidence: equal width, closed above."""
    return np.asarray(np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True), np.int64)


def _pairs(truth: Truth) -> tuple[Ints, Ints]:
    """All pairs of content and right tag, by content: rows int64 [p], tags int64 [p]."""
    lengths = _lengths(truth)
    if not len(lengths):
        raise UserError("there are no contents to measure on; at least 1 is needed")
    if not lengths.all():
        raise UserError(f"content {int(lengths.argmin())} (from 0) has no right tag; every content needs at least one")
    rows = np.repeat(np.arange(len(truth)), lengths)
    tags = np.concatenate(truth)
    order = np.lexsort((tags, rows))
    twice = (np.diff(tags[order]) == 0) & (np.diff(rows[order]) == 0)
    wrong = np.concatenate((rows[order][1:][twice], rows[tags < 0]))
    if len(wrong):
        row = int(wrong.min())
        raise UserError(f"content {row} (from 0): {shorten(truth[row].tolist())}, expected tag numbers >= 0, each once")
    return rows, tags


def _lengths(truth: Truth) -> Ints:
    return np.array([len(tags) for tags in truth], dtype=np.int64)


def _first(right: Flags, k: int) -> Flags:
    if k < 1:
        raise ValueError(f"k: {k}, expected at least 1")
    return right[:, :k]
