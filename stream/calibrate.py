"""Calibrate scores to confidences, the probability that a tag is right.

By isotonic regression: Zadrozny and Elkan (2002), "Transforming classifier scores into accurate multiclass probability
estimates"; with few pairs by a sigmoid: Platt (1999), "Probabilistic outputs for support vector machines". Scores only
rank tags; a calibration returns how often a tag with such a score is right. It is bound to the scores that it is fitted
to: a release, the steps of a path, and component versions (`Fingerprint`).

Pairs may have weights: how many pairs each represents, one over the probability that it was seen.
"""

import hashlib
import json
import math
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import ConfigDict, ValidationError

from tagbus.stream import logistic
from tagbus.stream.contract.release import LEAST, MOST, MOST_KNOTS, Curve, Fingerprint, JudgeFit, Knots
from tagbus.stream.errors import FieldError, ReleaseMismatch, UserError, shorten
from tagbus.stream.logistic import Flags, Floats

FEWEST_PAIRS = 50
ISOTONIC: Final = "isotonic"
PLATT: Final = "platt"
NONE: Final = "none"
# Knots of a sigmoid: between two of them the straight line differs from it by less than 0.001.
SIGMOID_KNOTS: Final = 100
# Minimum spread of scores: equal scores have no slope.
ALMOST_NONE: Final = 1e-9
# 84 knots took 2.4 KB.
FILE_BYTES = 100_000
# Expected values for errors where pydantic's message does not say.
_EXPECTED = {"missing": "this field too", "extra_forbidden": "no such field", "json_invalid": "JSON"}


class Calibration(Curve):
    """A fitted curve, and its application."""

    # In a file a misspelt field is an error; on the topic an unknown field may come from a later version.
    model_config = ConfigDict(extra="forbid")

    @cached_property
    def _knots(self) -> tuple[Floats, Floats]:
        return np.array(self.scores), np.array(self.probabilities)

    def apply(self, scores: Floats) -> Floats:
        """Confidences of scores, float64 of the same shape, in (0, 1); monotonic in the score."""
        return np.asarray(np.interp(scores, *self._knots), dtype=np.float64)

    def match(self, fingerprint: Fingerprint, place: str) -> None:
        """Raises ReleaseMismatch that names `place` and both fingerprints if it is fitted to other scores."""
        if self.fingerprint != fingerprint:
            raise ReleaseMismatch(
                f"{place} is fitted to '{self.fingerprint}', but this is '{fingerprint}'; "
                "run `tagbus calibrate` with these settings"
            )

    def save(self, path: Path) -> None:
        """Write it as JSON. Raises UserError if the file cannot be written."""
        try:
            path.write_text(self.model_dump_json() + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def uncalibrated(fingerprint: Fingerprint) -> Calibration:
    """The fallback without a fitted calibration: named `none`; the confidence is the score, clipped to the open
    interval."""
    return Calibration(
        name=NONE,
        release=fingerprint.release,
        path=fingerprint.path,
        components=dict(fingerprint.components),
        scores=(LEAST, MOST),
        probabilities=(LEAST, MOST),
        fitted_on=0,
        contents=0,
    )


def fit(
    scores: Floats, right: Flags, fingerprint: Fingerprint, contents: int, weights: Floats | None = None
) -> Calibration:
    """Fit by isotonic regression to pairs of content and tag: `scores` float64 [n], `right` bool [n] (people accept the
    tag), `weights` float64 [n], above 0.

    `contents`: the number of contents in the pairs. The name is deterministic. Raises UserError below 50 pairs or if
    all are right or all wrong, ValueError for mismatched shapes or numbers that are not finite.
    """
    given = _checked(scores, right, weights)
    return _made(ISOTONIC, _knots(scores, right, given), fingerprint, len(scores), contents)


def fit_sigmoid(
    scores: Floats, right: Flags, fingerprint: Fingerprint, contents: int, weights: Floats | None = None
) -> Calibration:
    """Fit a sigmoid that rises with the score, for too few pairs for `fit`; arguments and errors as there.

    Newton's method with Platt's targets, as Lin, Lin and Weng (2007), "A note on Platt's probabilistic outputs for
    support vector machines".
    """
    given = _checked(scores, right, weights)
    return _made(PLATT, _sigmoid(scores, right, given), fingerprint, len(scores), contents)


def log_loss(confidence: Floats, right: Flags, weights: Floats) -> float:
    """The weighted mean of `logistic.losses`."""
    return float(np.average(logistic.losses(confidence, right), weights=weights))


def effective_size(weights: Floats) -> float:
    """The number of equal weights that would be as precise: Kish's (sum w)^2 / sum w^2."""
    return float(weights.sum() ** 2 / (weights**2).sum()) if len(weights) else 0.0


def _checked(scores: Floats, right: Flags, weights: Floats | None) -> Floats:
    """The weights; all 1 if none are given."""
    given = np.ones(scores.shape) if weights is None else weights
    if scores.ndim != 1 or not scores.shape == right.shape == given.shape:
        raise ValueError(
            f"scores {scores.shape} and right {right.shape} must both be of one shape [n], and so must weights"
        )
    if not (np.isfinite(scores).all() and np.isfinite(given).all() and (given > 0).all()):
        raise ValueError("scores and weights must be finite, weights above 0")
    rights = int(right.sum())
    if len(scores) < FEWEST_PAIRS or rights in {0, len(scores)}:
        raise UserError(
            f"a calibration needs at least {FEWEST_PAIRS} pairs of content and tag, right and wrong ones among them; "
            f"there are {len(scores)}, {rights} of them right"
        )
    return given


def _made(kind: str, knots: tuple[Floats, Floats], fingerprint: Fingerprint, pairs: int, contents: int) -> Calibration:
    """A curve through these knots: scores, and their probabilities."""
    heights = knots[1].clip(LEAST, MOST).round(6)
    values = {"scores": tuple(knots[0].tolist()), "probabilities": tuple(heights.tolist())}
    fitted = uncalibrated(fingerprint).model_copy(update={**values, "fitted_on": pairs, "contents": contents})
    return fitted.model_copy(update={"name": _name(kind, fitted)})


def _knots(scores: Floats, right: Flags, weights: Floats) -> tuple[Floats, Floats]:
    """The edges of the isotonic blocks and their probabilities; above 200 knots neighbouring blocks are merged."""
    values, place = np.unique(scores, return_inverse=True)
    pairs = np.bincount(place, weights=weights)
    rights = np.bincount(place, weights=weights * right)
    # Add one right pair at the lowest score and one wrong pair at the highest: otherwise a few samples at an end give 0
    # or 1. On held-out YSO titles (votes of TF-IDF neighbours) this lowers ECE from 0.024 to 0.022 and log loss from
    # 0.357 to 0.333 when fitted on 100 contents; at 3,000 it changes little (ECE 0.0104 and 0.0103).
    pairs[0] += 1
    rights[0] += 1
    pairs[-1] += 1
    # scipy.optimize takes 0.3 s to import, and a worker rarely fits.
    from scipy.optimize import isotonic_regression

    starts = isotonic_regression(rights / pairs, weights=pairs).blocks[:-1]
    starts = starts[:: math.ceil(2 * len(starts) / MOST_KNOTS)]
    lasts = np.append(starts[1:], len(values)) - 1
    share = np.add.reduceat(rights, starts) / np.add.reduceat(pairs, starts)
    knots = values[np.stack((starts, lasts), axis=1)].ravel()
    heights = np.repeat(share, 2)
    # A block with a single score is one knot.
    kept = np.append(True, np.diff(knots) > 0)
    return knots[kept], heights[kept]


def _sigmoid(scores: Floats, right: Flags, weights: Floats) -> tuple[Floats, Floats]:
    """Points of the fitted sigmoid from the lowest to the highest score."""
    middle, spread = float(np.average(scores, weights=weights)), float(scores.std()) or 1.0
    slope, offset = _platt((scores - middle) / spread, right, weights)
    knots = np.unique(np.linspace(scores.min(), scores.max(), SIGMOID_KNOTS))
    # Scores rank tags: a falling curve is not a calibration.
    return knots, logistic.sigmoid(max(slope, 0.0) * (knots - middle) / spread + offset)


def _platt(x: Floats, right: Flags, weights: Floats) -> tuple[float, float]:
    """Slope and offset of the sigmoid with the least weighted log loss."""
    rights, wrongs = float((weights * right).sum()), float((weights * ~right).sum())
    target = np.where(right, (rights + 1) / (rights + 2), 1 / (wrongs + 2))
    offset, slope = logistic.fit(x[:, None], target, weights, ridge=ALMOST_NONE).tolist()
    return slope, offset


def isotonic(scores: Floats, right: Flags, weights: Floats) -> Knots:
    """Only the curve of an isotonic regression; arguments as `fit`."""
    knots, heights = _knots(scores, right, weights)
    return Knots(scores=tuple(knots.tolist()), probabilities=tuple(heights.clip(LEAST, MOST).round(6).tolist()))


def with_judge(curve: Calibration, judge: JudgeFit) -> Calibration:
    """The calibration of a path with the judge: it includes the judge's weight, also in its name."""
    joined = curve.model_copy(update={"judge": judge})
    return joined.model_copy(update={"name": _name(_kind(joined), joined)})


def before_judge(curve: Calibration, fingerprint: Fingerprint) -> Calibration | None:
    """The calibration of the path without the judge (`fingerprint`) that the judge was fitted with."""
    if curve.judge is None:
        return None
    before = {name: getattr(curve.judge.before, name) for name in ("scores", "probabilities")}
    fitted = {**before, "fitted_on": curve.fitted_on, "contents": curve.contents}
    made = uncalibrated(fingerprint).model_copy(update=fitted)
    return made.model_copy(update={"name": _name(ISOTONIC, made)})


def load(path: Path, fingerprint: Fingerprint, *others: Fingerprint) -> Calibration:
    """Load a file of `tagbus calibrate` for these scores, or for those of `others`.

    Raises UserError that names the file, the field and the expected value; ReleaseMismatch that names both
    fingerprints.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); `tagbus calibrate` writes such a file") from None
    if len(raw) > FILE_BYTES:
        raise UserError(f"{path}: more than {FILE_BYTES} bytes, expected a file of `tagbus calibrate`")
    try:
        calibration = Calibration.model_validate_json(raw)
    except ValidationError as error:
        raise UserError(f"{path}: {_first_error(error)}") from None
    if calibration.fingerprint not in others:
        calibration.match(fingerprint, str(path))
    _check_name(path, calibration)
    return calibration


def _check_name(path: Path, calibration: Calibration) -> None:
    """The name is recorded in every result, so a file edited by hand must not keep it."""
    expected = _name(_kind(calibration), calibration)
    if calibration.name != expected and calibration != uncalibrated(calibration.fingerprint):
        wrong = FieldError("name", shorten(calibration.name), f"{expected}, the hash of the file's content")
        raise UserError(f"{path}: {wrong}")


def _kind(calibration: Calibration) -> str:
    return PLATT if calibration.name.startswith(PLATT) else ISOTONIC


def _name(kind: str, calibration: Calibration) -> str:
    """The kind of fit, and a hash of all other fields that are set."""
    content = json.dumps(calibration.model_dump(exclude={"name"}, exclude_none=True), sort_keys=True)
    return f"{kind}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def _first_error(error: ValidationError) -> FieldError:
    problem = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"]) or "file"
    expected = _EXPECTED.get(problem["type"], problem["msg"].removeprefix("Input should be "))
    return FieldError(field, shorten(problem["input"]), expected)
