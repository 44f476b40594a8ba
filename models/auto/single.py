"""One tag or none a content: the confidence from which the first tag is given, and what that is worth.

Precision: contents whose tag is right, of those that get one. Recall: the same contents, of those that have a tag. F1:
their harmonic mean. All in percent.
"""

from collections.abc import Sequence
from typing import Final, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from tagbus.stream.contract.events import Exemplar, TaggedContent
from tagbus.stream.intervals import ENDS, SAMPLES, SEED
from tagbus.stream.quality import Floats

# Right, given and wanted: of each content 0 or 1.
Counts = Floats
# A confidence is rounded down to so many digits, so that the tag that it was read from is given.
DIGITS: Final = 6


class Single(BaseModel):
    """The cut, the contents that it was measured on, and how many of them get a tag."""

    model_config = ConfigDict(frozen=True)

    cut: float
    contents: int
    given: int
    precision: float
    recall: float
    f1: float
    interval: tuple[float, float]

    @classmethod
    def of(cls, cut: float, results: Sequence[TaggedContent], items: Sequence[Exemplar]) -> Self:
        """Measure a cut. `interval`: of F1, 95% by bootstrap over contents."""
        counts = _counts(cut, results, items)
        precision, recall, f1 = _figures(counts.sum(axis=0))
        return cls(
            cut=cut,
            contents=len(items),
            given=int(counts[:, 1].sum()),
            precision=round(precision, 2),
            recall=round(recall, 2),
            f1=round(f1, 2),
            interval=_interval(counts),
        )

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"one tag or none, from confidence {self.cut:g} on: precision {self.precision:.2f}, "
            f"recall {self.recall:.2f}, F1 {self.f1:.2f} (95% {low:.2f} to {high:.2f}); "
            f"{self.given:,} of {self.contents:,} contents get a tag"
        )


def best_cut(results: Sequence[TaggedContent], items: Sequence[Exemplar]) -> float:
    """The confidence with the best F1 on these contents, the highest of several; 0 where no content gets a tag."""
    first = np.array([one.tags[0].confidence if one.tags else -1.0 for one in results])
    right = _counts(0.0, results, items)[:, 0]
    wanted = sum(bool(item.accepted) for item in items)
    order = np.argsort(-first, kind="stable")
    order = order[first[order] >= 0]
    if not len(order) or not wanted:
        return 0.0
    f1 = 2 * np.cumsum(right[order]) / (np.arange(1, len(order) + 1) + wanted)
    # Contents of one confidence get a tag together.
    last = np.append(first[order][1:] != first[order][:-1], True)
    place = int(np.argmax(np.where(last, f1, -1.0)))
    return float(np.floor(first[order][place] * 10**DIGITS) / 10**DIGITS)


def _counts(cut: float, results: Sequence[TaggedContent], items: Sequence[Exemplar]) -> Counts:
    rows = []
    for one, item in zip(results, items, strict=True):
        given = bool(one.tags) and one.tags[0].confidence >= cut
        rows.append((given and one.tags[0].id in item.accepted, given, bool(item.accepted)))
    return np.array(rows, np.float64).reshape(-1, 3)


def _figures(sums: Floats) -> tuple[float, float, float]:
    right, given, wanted = sums.tolist()
    whole = given + wanted
    return (
        100 * right / given if given else 0.0,
        100 * right / wanted if wanted else 0.0,
        200 * right / whole if whole else 0.0,
    )


def _interval(counts: Counts) -> tuple[float, float]:
    random = np.random.default_rng(SEED)
    drawn = [_figures(counts[random.integers(len(counts), size=len(counts))].sum(axis=0))[2] for _ in range(SAMPLES)]
    low, high = np.percentile(drawn, ENDS)
    return round(float(low), 2), round(float(high), 2)
