"""Confidence intervals of the metrics in `quality`, and recall by tag frequency. numpy only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from tagbus.stream.quality import Flags, Floats, Ints, Parts, Quality, Ranked, Truth, recall_at

SAMPLES: Final = 1000
SEED: Final = 0
# Samples computed at a time: their counts for 10,130 contents are 8 MB.
CHUNK: Final = 100
# Of 95%, in percent.
ENDS: Final = (2.5, 97.5)

# Minimum training contents of a head tag, and of a torso tag; tags with fewer are tail. Of YSO's tags 3,469 are head,
# 14,455 torso and 6,889 tail.
HEAD: Final = 100
TORSO: Final = 10


@dataclass(frozen=True, slots=True)
class Interval:
    """The range from `low` to `high` that contains 95% of the samples' values."""

    low: Quality
    high: Quality


def bootstrap(parts: Parts, samples: int = SAMPLES, seed: int = SEED) -> Interval:
    """95% percentile intervals of every metric, by bootstrap over contents (Efron and Tibshirani 1993, chapter 13).

    A sample draws as many contents as there are, with replacement. The same seed gives the same intervals.
    """
    contents = len(parts.tags)
    random = np.random.default_rng(seed)
    drawn = []
    for start in range(0, samples, CHUNK):
        size = min(CHUNK, samples - start)
        rows = random.integers(contents, size=(size, contents)) + contents * np.arange(size)[:, None]
        times = np.bincount(rows.ravel(), minlength=size * contents).reshape(size, contents)
        drawn.append(parts.figures(times.astype(np.float64)))
    low, high = np.percentile(np.concatenate(drawn), ENDS, axis=0)
    return Interval(Quality(*low.tolist()), Quality(*high.tolist()))


def of_mean(values: Floats, samples: int = SAMPLES, seed: int = SEED) -> tuple[Floats, Floats]:
    """Low and high end of the 95% percentile interval of a mean, by the same bootstrap.

    `values` float64 [n], or [n, m] for the intervals of m columns that are drawn together.
    """
    random = np.random.default_rng(seed)
    means = [values[random.integers(len(values), size=len(values))].mean(axis=0) for _ in range(samples)]
    low, high = np.percentile(means, ENDS, axis=0)
    return low, high


def bands(counts: Ints) -> dict[str, Flags]:
    """Masks of head, torso and tail tags, bool [m] each; `counts`, int64 [m]: training contents of each tag."""
    return {
        "head": counts >= HEAD,
        "torso": (counts >= TORSO) & (counts < HEAD),
        "tail": counts < TORSO,
    }


def recall_by_band(ranked: Ranked, truth: Truth, counts: Ints, k: int = 10) -> Mapping[str, float | None]:
    """R@k in percent of the right tags of each band, over the contents that have one; None for a band without any.

    The first k ranks are those of the whole list, so bands compete for them.
    """
    found: dict[str, float | None] = {}
    for name, band in bands(counts).items():
        kept = [tags[band[tags]] for tags in truth]
        rows = np.array([row for row, tags in enumerate(kept) if len(tags)], np.int64)
        some = Ranked(ranked.indices[rows], ranked.scores[rows])
        found[name] = recall_at(some, [kept[row] for row in rows], k) if len(rows) else None
    return found
