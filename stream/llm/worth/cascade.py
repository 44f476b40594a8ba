"""The cascade: contents whose scores are decisive skip the judge.

The lead of the best candidate decides whether the judge may change the best tag: the band of contents that are sent are
those whose lead is below a margin. The margin is the smallest one with a guarantee, as in BARGAIN (Zeighami et al.
2025, "Cut costs, not accuracy"): with probability 1 - delta the best tag is the judge's in at least a target share of
all contents. Whether a content's best tag is the same with and without the judge is known for a random sample, those
that are always sent, without any labelling.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np

from tagbus.stream.logistic import Flags, Floats, logit

DELTA: Final = 0.05
# Any lead is less than this one: log odds lie between -9.3 and 9.3.
ALWAYS: Final = 100.0


@dataclass(frozen=True, slots=True)
class Band:
    """Contents whose best candidate leads by at least `margin` skip the judge; `share` of the sample is sent."""

    margin: float
    share: float


def lead(probabilities: Floats) -> float:
    """The lead of a content's best candidate, in log odds; 0 without candidates, and with one its lead over none."""
    if not len(probabilities):
        return 0.0
    first, second = np.sort(np.append(probabilities, 0.0))[::-1][:2]
    return float(logit(np.array([first]))[0] - logit(np.array([second]))[0])


def for_quality(leads: Floats, changed: Flags, target: float, delta: float = DELTA) -> Band:
    """The smallest margin that meets a quality: with probability 1 - delta over samples, at least `target` of all
    contents have the best tag that the judge would give.

    `leads` float64 [n] and `changed` bool [n] are of a random sample; `changed`: the judge gave another best tag.
    Everything is sent if the sample is too small for a guarantee.
    """
    order = np.argsort(-leads, kind="stable")
    skipped = leads[order]
    # The losses in the sample if all contents with at least each one's lead were skipped.
    lost = np.cumsum(changed[order])
    # The exact binomial test of "more than 1 - target are lost". The losses never fall as the margin shrinks, so a
    # margin that passes although it should not does so only if the first one that should not passes too: looking at
    # every margin costs no correction. scipy.special takes 0.15 s to import, and a worker rarely fits.
    from scipy.special import bdtr

    passes = bdtr(lost, len(leads), 1 - target) <= delta
    # Contents with the same lead are skipped or sent together.
    ends = np.append(skipped[1:] < skipped[:-1], True)
    good = np.flatnonzero(passes & ends)
    if not len(good):
        return Band(ALWAYS, 1.0)
    return _band(leads, float(skipped[good[-1]]))


def for_share(leads: Floats, share: float) -> Band:
    """The margin at which about `share` of the contents are sent, those with the least lead; for a cost, the share is
    the affordable one."""
    if share >= 1:
        return Band(ALWAYS, 1.0)
    return _band(leads, float(np.quantile(leads, share)))


def skips(margin: float | None, leading: float) -> bool:
    """Whether a content with this lead skips the judge. `margin` None: no content does."""
    return margin is not None and leading >= margin


def is_control(content_id: str, share: float) -> bool:
    """Whether a content is always sent: by a hash of its id, so the same random sample everywhere."""
    digest = hashlib.sha256(f"control\n{content_id}".encode(errors="replace")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56 < share


def _band(leads: Floats, margin: float) -> Band:
    return Band(margin, float((leads < margin).mean()))
