"""How sure the figures of `quality` are, and how they split by how frequent a tag is. numpy only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from tagbus.stream.quality import Flags, Ints, Parts, Quality, Ranked, Truth, recall_at

SAMPLES: Final = 1000
SEED: Final = 0
# Samples at once: their counts for 10,130 contents are 8 MB.
CHUNK: Final = 100

# Training contents from which a tag is of the head, and of the torso; a tag with fewer is of the tail. Of YSO's tags
# 3,469 are head, 14,455 torso and 6,889 tail.
HEAD: Final = 100
TORSO: Final = 10


@dataclass(frozen=True, slots=True)
class Interval:
    """From `low` to `high`, 95% of the samples' figures."""

    low: Quality
    high: Quality


def bootstrap(parts: Parts, samples: int = SAMPLES, seed: int = SEED) -> Interval:
    """95% percentile intervals of every figure, over contents (Efron and Tibshirani 1993, chapter 13).

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
    low, high = np.percentile(np.concatenate(drawn), (2.5, 97.5), axis=0)
    return Interval(Quality(*low.tolist()), Quality(*high.tolist()))


def bands(counts: Ints) -> dict[str, Flags]:
    """Which tags are head, torso and tail, bool [m] each; `counts`, int64 [m]: training contents of each tag."""
    return {
        "head": counts >= HEAD,
        "torso": (counts >= TORSO) & (counts < HEAD),
        "tail": counts < TORSO,
    }


def recall_by_band(ranked: Ranked, truth: Truth, counts: Ints, k: int = 10) -> Mapping[str, float | None]:
    """R@k in percent of the right tags of each band, over the contents that have one; None where none has.

    The first k places are those of the whole list: a band competes with the others for them.
    """
    found: dict[str, float | None] = {}
    for name, band in bands(counts).items():
        kept = [tags[band[tags]] for tags in truth]
        rows = np.array([row for row, tags in enumerate(kept) if len(tags)], np.int64)
        some = Ranked(ranked.indices[rows], ranked.scores[rows])
        found[name] = recall_at(some, [kept[row] for row in rows], k) if len(rows) else None
    return found
