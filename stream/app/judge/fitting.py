"""What the judge is worth on contents with known tags: its weight, and from where on the cascade skips it."""

from collections.abc import Mapping, Sequence

import numpy as np

from tagbus.stream import calibrate
from tagbus.stream.calibrate import Calibration
from tagbus.stream.config import CascadeSettings
from tagbus.stream.contract.events import TaggedContent
from tagbus.stream.contract.release import Fingerprint, JudgeFit
from tagbus.stream.errors import UserError
from tagbus.stream.llm.component import NAME
from tagbus.stream.llm.worth import cascade, fusion
from tagbus.stream.llm.worth.fusion import Pairs


def fit(
    results: Sequence[TaggedContent],
    truth: Mapping[str, frozenset[str]],
    fingerprint: Fingerprint,
    settings: CascadeSettings,
) -> Calibration:
    """The calibration of the path with the judge, of results of a tagger that asks about every content.

    Raises UserError as `fusion.fit`, and where both a quality and a share of the cascade are set.
    """
    if settings.quality is not None and settings.share is not None:
        raise UserError("TAGBUS_CASCADE__QUALITY and TAGBUS_CASCADE__SHARE are both set, expected one of them")
    pairs = pairs_of(results, truth)
    curve = fusion.fit(pairs, fingerprint)
    if curve.judge is None or not curve.judge.weight or (settings.quality is None and settings.share is None):
        return curve
    margin = _margin(pairs, curve.judge, settings)
    return calibrate.with_judge(curve, curve.judge.model_copy(update={"margin": margin}))


def pairs_of(results: Sequence[TaggedContent], truth: Mapping[str, frozenset[str]]) -> Pairs:
    """Every content and tag of the results, with what the judge said."""
    found = [
        (tag.score, tag.evidence.scores.get(NAME, np.nan), tag.id in truth[one.id], number)
        for number, one in enumerate(results)
        for tag in one.tags
    ]
    score, judge, right, content = zip(*found, strict=True) if found else ((), (), (), ())
    return Pairs(
        np.array(score, np.float64), np.array(judge, np.float64), np.array(right, np.bool_), np.array(content, np.int64)
    )


def _margin(pairs: Pairs, fit: JudgeFit, settings: CascadeSettings) -> float:
    """From which lead on a content skips the judge."""
    without = fusion.apply(fit, pairs.score, np.full(len(pairs), np.nan))
    fused = fusion.apply(fit, pairs.score, pairs.judge)
    starts = np.unique(pairs.content, return_index=True)[1][1:]
    parts = list(zip(np.split(without, starts), np.split(fused, starts), strict=True))
    leads = np.array([cascade.lead(before) for before, _ in parts])
    changed = np.array([before.argmax() != after.argmax() for before, after in parts])
    if settings.quality is not None:
        return cascade.for_quality(leads, changed, settings.quality, settings.delta).margin
    return cascade.for_share(leads, settings.share or 0.0).margin
