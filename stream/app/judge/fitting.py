"""Fit the judge on contents with known tags or on people's decisions: its weight, and the margin from which on the
cascade skips it."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tagbus.stream import calibrate
from tagbus.stream.calibrate import Calibration
from tagbus.stream.config import CascadeSettings
from tagbus.stream.contract.events import TaggedContent
from tagbus.stream.contract.release import Fingerprint, JudgeFit
from tagbus.stream.errors import UserError
from tagbus.stream.feedback.learning import HELD_OUT, SIGMOID_FROM, AskedContent, Refit
from tagbus.stream.llm.component import NAME
from tagbus.stream.llm.worth import cascade, fusion
from tagbus.stream.llm.worth.cascade import is_control
from tagbus.stream.llm.worth.fusion import WINDOW, Pairs, fits
from tagbus.stream.logistic import Floats


def fit(
    results: Sequence[TaggedContent],
    truth: Mapping[str, frozenset[str]],
    fingerprint: Fingerprint,
    settings: CascadeSettings,
) -> Calibration:
    """The calibration of the path with the judge, from results of a tagger that asks about every content.

    Raises UserError as `fusion.fit` does, if both a quality and a share of the cascade are set, and if the judge was
    asked by several backends.
    """
    if settings.quality is not None and settings.share is not None:
        raise UserError("TAGBUS_CASCADE__QUALITY and TAGBUS_CASCADE__SHARE are both set, expected one of them")
    pairs = pairs_of(results, truth)
    curve = fusion.fit(pairs, fingerprint, _backend(results))
    if curve.judge is None or not curve.judge.weight or (settings.quality is None and settings.share is None):
        return curve
    margin = _margin(pairs, curve.judge, settings)
    return calibrate.with_judge(curve, curve.judge.model_copy(update={"margin": margin}))


def learnt(contents: Sequence[AskedContent], old: Calibration | None, settings: CascadeSettings) -> Refit | None:
    """Fit to people's decisions on contents of one fingerprint, oldest first; None for too few decisions, or if all are
    right or all wrong.

    All were asked by one backend; an `old` one fitted to another is none, as it is to workers. Only the newest 2,000
    pairs count, so that the judge's worth before it changed is forgotten. The fit is to the
    oldest four fifths of them, and is taken only if its loss on the rest is less than that of `old`, or, if `old` is
    None, than that of the confidences as shown. The cascade is fitted to the control share alone: other contents were
    asked about because they are not decisive.
    """
    pairs, given = _decided(contents)
    if int(np.isfinite(pairs.judge).sum()) < SIGMOID_FROM:
        return None
    backend = contents[-1].backend
    if old is not None and old.judge is not None and not fits(old.judge, backend):
        old = None
    pairs, given = pairs.newest(WINDOW), given[-WINDOW:]
    newest = np.arange(len(pairs)) >= len(pairs) - max(1, int(len(pairs) * HELD_OUT))
    try:
        curve = fusion.fit(pairs.where(~newest), contents[0].fingerprint, backend)
    except UserError:
        return None
    held_out, before = pairs.where(newest), given[newest] if old is None else _confidences(old, pairs.where(newest))
    old_loss, new_loss = (
        calibrate.log_loss(one, held_out.right, held_out.weights) for one in (before, _confidences(curve, held_out))
    )
    curve = _with_cascade(curve, old, [one for one in contents if is_control(one.content, settings.control)], settings)
    effective = calibrate.effective_size(pairs.weights)
    return Refit(len(pairs), effective, old_loss, new_loss, curve if new_loss < old_loss else None)


def _backend(results: Iterable[TaggedContent]) -> str | None:
    """How the judge was asked. Raises UserError for several ways."""
    found = {one.versions.backend for one in results if any(NAME in tag.evidence.scores for tag in one.tags)}
    if len(found) > 1:
        raise UserError(
            f"the judge was asked by {' and '.join(sorted(map(str, found)))}, whose probabilities differ: expected one "
            "of them as TAGBUS_LLM__BACKEND"
        )
    return next(iter(found), None)


def confidence_of(curve: Calibration, score: Floats, judge: Floats) -> Floats:
    """Confidences of pairs, given the judge's probabilities; NaN where it gave none."""
    if curve.judge is None:
        return curve.apply(score)
    said = judge if curve.judge.weight else np.full(len(score), np.nan)
    return curve.apply(fusion.apply(curve.judge, score, said))


def pairs_of(results: Sequence[TaggedContent], truth: Mapping[str, frozenset[str]]) -> Pairs:
    """Every content and tag of the results, with the judge's probability."""
    found = [
        (tag.score, tag.evidence.scores.get(NAME, np.nan), tag.id in truth[one.id], number)
        for number, one in enumerate(results)
        for tag in one.tags
    ]
    score, judge, right, content = zip(*found, strict=True) if found else ((), (), (), ())
    return Pairs(
        np.array(score, np.float64), np.array(judge, np.float64), np.array(right, np.bool_), np.array(content, np.int64)
    )


def _decided(contents: Iterable[AskedContent]) -> tuple[Pairs, Floats]:
    """The pairs that people decided on, and their confidences as shown."""
    rows = [
        (tag.score, np.nan if tag.judge is None else tag.judge, found.right, number, found.weight, found.confidence)
        for number, one in enumerate(contents)
        for tag in one.tags
        if (found := one.decided.get(tag.tag)) is not None
    ]
    score, judge, right, content, weight, confidence = np.array(rows, np.float64).reshape(-1, 6).T
    return Pairs(score, judge, right.astype(np.bool_), content.astype(np.int64), weight), confidence


def _confidences(curve: Calibration, pairs: Pairs) -> Floats:
    return confidence_of(curve, pairs.score, pairs.judge)


def _with_cascade(
    curve: Calibration, old: Calibration | None, control: Sequence[AskedContent], settings: CascadeSettings
) -> Calibration:
    """The curve with the margin of the cascade, fitted to contents that are asked about in any case."""
    if curve.judge is None or not curve.judge.weight or (settings.quality is None and settings.share is None):
        return curve
    margin = None if old is None or old.judge is None else old.judge.margin
    if control:
        margin = _margin(_all(control), curve.judge, settings)
    return calibrate.with_judge(curve, curve.judge.model_copy(update={"margin": margin}))


def _all(contents: Sequence[AskedContent]) -> Pairs:
    """Every tag of every content, decided or not."""
    rows = [
        (tag.score, np.nan if tag.judge is None else tag.judge, number)
        for number, one in enumerate(contents)
        for tag in one.tags
    ]
    score, judge, content = np.array(rows, np.float64).T
    return Pairs(score, judge, np.zeros(len(rows), np.bool_), content.astype(np.int64))


def _margin(pairs: Pairs, fit: JudgeFit, settings: CascadeSettings) -> float:
    """The lead from which on a content skips the judge."""
    without = fusion.apply(fit, pairs.score, np.full(len(pairs), np.nan))
    fused = fusion.apply(fit, pairs.score, pairs.judge)
    starts = np.unique(pairs.content, return_index=True)[1][1:]
    parts = list(zip(np.split(without, starts), np.split(fused, starts), strict=True))
    leads = np.array([cascade.lead(before) for before, _ in parts])
    changed = np.array([before.argmax() != after.argmax() for before, after in parts])
    if settings.quality is not None:
        return cascade.for_quality(leads, changed, settings.quality, settings.delta).margin
    return cascade.for_share(leads, settings.share or 0.0).margin
