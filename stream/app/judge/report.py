"""The report of `tagbus calibrate`: how reliable confidences are, the effect of each cut, and the judge's contribution.

Figures are held out: the file is halved by a hash of the ids, and each half gets its confidences from a calibration
fitted on the other.
"""

import hashlib
import importlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final, cast

import numpy as np
from pydantic import JsonValue

from tagbus.stream import logistic, quality
from tagbus.stream.app.judge import fitting
from tagbus.stream.calibrate import Calibration
from tagbus.stream.contract.events import Exemplar, TaggedContent
from tagbus.stream.logistic import Flags, Floats
from tagbus.stream.quality import Ints, Ranked, Truth

BINS: Final = 10
CUTS: Final = tuple(round(0.05 * step, 2) for step in range(20))
# Bounds of the rows by frequency: the number of exemplars that carry a tag.
FREQUENCIES: Final = ((0, 0), (1, 9), (10, 99), (100, None))

SCOPES: Final = 20

# Fits a calibration to some results.
Fit = Callable[[Sequence[TaggedContent]], Calibration]
Json = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The target of a cut: Acc@k or Coverage@k, in percent; None: no target."""

    k: int = 1
    accuracy: float | None = None
    coverage: float | None = None


@dataclass(frozen=True, slots=True)
class _Measured:
    """Held-out confidences of all n pairs: `confidence`, `right`, `content` and `frequency` are [n]; `scopes`, `ranked`
    and `truth` have a row a content."""

    scopes: Sequence[frozenset[str]]
    confidence: Floats
    right: Flags
    content: Ints
    frequency: Ints
    ranked: Ranked
    truth: Truth


def report(
    results: Sequence[TaggedContent],
    annotated: Sequence[Exemplar],
    counts: Mapping[str, int],
    fit: Fit,
    wanted: Wanted,
) -> Json:
    """The figures as JSON. `results`: of a tagger without calibration, in the order of `annotated`. `counts`: the
    number of exemplars in memory that carry each tag. Raises UserError for too few contents to fit on half of them."""
    whole = fit(results)
    found = _measured(results, annotated, counts, fit)
    return {
        "calibration": whole.name,
        "path": whole.path,
        "contents": len(results),
        "pairs": len(found.right),
        "ece": _round(quality.ece(found.confidence, found.right)),
        "log_loss": _round(float(logistic.losses(found.confidence, found.right).mean())),
        "judge": _judge(whole),
        "k": wanted.k,
        "cuts": [_cut(found, cut, wanted.k) for cut in CUTS],
        "wanted": _wanted(found, wanted),
        "reliability": list(_reliability(found)),
        "by_scope": _scopes(found),
        "by_frequency": {_words(*bounds): _row(found, _between(found, *bounds)) for bounds in FREQUENCIES},
    }


def text(figures: Json) -> str:
    """The figures as text, one per line."""
    lines = [f"{name}: {figures[name]}" for name in ("calibration", "path", "contents", "pairs", "ece", "log_loss")]
    judge = figures["judge"]
    if isinstance(judge, dict):
        lines.append(
            f"judge: weight {judge['weight']}, held-out log loss {judge['loss_without']} without it and "
            f"{judge['loss_with']} with it; {judge['says']}"
        )
    k = figures["k"]
    lines.append(f"cut   Acc@{k}  Coverage@{k}  (percent)")
    lines += [
        f"{row['cut']:<5} {_shown(row['accuracy']):>6} {_shown(row['coverage']):>11}" for row in _rows(figures["cuts"])
    ]
    lines += [f"for {row['wanted']}: {row['says']}" for row in _rows(figures["wanted"])]
    lines.append("confidence  pairs  mean   right")
    lines += [
        f"{row['from']:.1f} to {row['to']:.1f}  {row['pairs']:>5}  {_shown(row['confidence'])}  {_shown(row['right'])}"
        for row in _rows(figures["reliability"])
    ]
    for title, rows in (("scope", figures["by_scope"]), ("exemplars of the tag", figures["by_frequency"])):
        lines.append(f"{title}: pairs, right, mean confidence, ECE")
        lines += [
            f"  {name}: {row['pairs']}, {_shown(row['right'])}, {_shown(row['confidence'])}, {_shown(row['ece'])}"
            for name, row in (rows.items() if isinstance(rows, dict) else ())
            if isinstance(row, dict)
        ]
    return "\n".join(lines) + "\n"


def draw(figures: Json, to: Path) -> bool:
    """Draw Acc@k against Coverage@k (LLM4Tag, figure 8) and reliability as PNG; False if matplotlib is not
    installed."""
    try:
        figure = importlib.import_module("matplotlib.figure").Figure((10, 4.5), layout="constrained")
    except ImportError:
        return False
    left, right = figure.subplots(1, 2)
    cuts, bins = _rows(figures["cuts"]), [row for row in _rows(figures["reliability"]) if row["pairs"]]
    left.plot([row["coverage"] for row in cuts], [row["accuracy"] for row in cuts], marker=".")
    left.set(xlabel=f"Coverage@{figures['k']}, percent", ylabel=f"Acc@{figures['k']}, percent")
    right.plot([0, 1], [0, 1], color="0.7")
    right.plot([row["confidence"] for row in bins], [row["right"] for row in bins], marker="o")
    right.set(xlabel="confidence", ylabel="share that is right", title=f"ECE {figures['ece']}")
    figure.savefig(to)
    return True


def _measured(
    results: Sequence[TaggedContent], annotated: Sequence[Exemplar], counts: Mapping[str, int], fit: Fit
) -> _Measured:
    truth = {item.id: frozenset(item.accepted) for item in annotated}
    pairs = fitting.pairs_of(results, truth)
    half = np.array([_side(one.id) for one in results], np.bool_)
    confidence = np.zeros(len(pairs))
    for fitted_on in (True, False):
        curve = fit([one for one, side in zip(results, half, strict=True) if side == fitted_on])
        rows = half[pairs.content] != fitted_on
        confidence[rows] = fitting.confidence_of(curve, pairs.score[rows], pairs.judge[rows])
    ids = [tag.id for one in results for tag in one.tags]
    numbers = {tag: number for number, tag in enumerate(dict.fromkeys([*ids, *chain.from_iterable(truth.values())]))}
    return _Measured(
        [frozenset(item.scopes) for item in annotated],
        confidence,
        pairs.right,
        pairs.content,
        np.array([counts.get(tag, 0) for tag in ids], np.int64),
        _ranked([numbers[tag] for tag in ids], confidence, pairs.content, len(results)),
        # People may have found no tag right; that is represented by a number that no tag has.
        [np.array([numbers[tag] for tag in truth[one.id]] or [len(numbers)], np.int64) for one in results],
    )


def _side(content_id: str) -> bool:
    return hashlib.sha256(f"half\n{content_id}".encode(errors="replace")).digest()[0] % 2 == 0


def _ranked(tags: Sequence[int], confidence: Floats, content: Ints, contents: int) -> Ranked:
    """Each content's tags by confidence."""
    order = np.lexsort((-confidence, content))
    starts = np.searchsorted(content, np.arange(contents))
    place = np.arange(len(tags)) - starts[content]
    indices = np.full((contents, int(place.max(initial=0)) + 1), -1, np.int64)
    scores = np.zeros(indices.shape)
    indices[content, place] = np.array(tags, np.int64)[order]
    scores[content, place] = confidence[order]
    return Ranked(indices, scores)


def _judge(whole: Calibration) -> Json | None:
    fit = whole.judge
    if fit is None:
        return None
    says = "it is asked" if fit.weight else "held-out log loss does not improve, so it is not asked"
    if fit.weight and fit.margin is not None:
        says = f"asked where the best candidate leads by less than {fit.margin:.3f} in log odds"
    return {
        "weight": fit.weight,
        "loss_without": fit.loss_without,
        "loss_with": fit.loss_with,
        "pairs": fit.pairs,
        "margin": fit.margin,
        "says": says,
    }


def _cut(found: _Measured, cut: float, k: int) -> Json:
    left = quality.at_least(found.ranked, cut)
    got = bool((left.indices >= 0).any())
    accuracy = round(quality.acc_at(left, found.truth, k), 2) if got else None
    return {"cut": cut, "accuracy": accuracy, "coverage": round(quality.coverage_at(left, k), 2)}


def _wanted(found: _Measured, wanted: Wanted) -> list[JsonValue]:
    """The lowest cut that reaches the accuracy, and the highest that reaches the coverage."""
    cuts = sorted({0.0, *(math.floor(value * 1000) / 1000 for value in found.confidence.tolist())})
    rows: list[JsonValue] = []
    for name, value, order in (("accuracy", wanted.accuracy, cuts), ("coverage", wanted.coverage, cuts[::-1])):
        if value is None:
            continue
        tried = (_cut(found, cut, wanted.k) for cut in order)
        hit = next((row for row in tried if (got := row[name]) is not None and cast(float, got) >= value), None)
        words = f"{'Acc' if name == 'accuracy' else 'Coverage'}@{wanted.k} of {value:g}"
        says = "no cut gives that" if hit is None else f"TAGBUS_TAGGER__LEAST_CONFIDENCE={hit['cut']}"
        rows.append({"wanted": words, "says": says, **(hit or {})})
    return rows


def _reliability(found: _Measured) -> Iterator[JsonValue]:
    number = np.minimum((found.confidence * BINS).astype(int), BINS - 1)
    for step in range(BINS):
        yield {"from": step / BINS, "to": (step + 1) / BINS, **_row(found, number == step)}


def _row(found: _Measured, rows: Flags) -> Json:
    pairs = int(rows.sum())
    if not pairs:
        return {"pairs": 0, "right": None, "confidence": None, "ece": None}
    confidence, right = found.confidence[rows], found.right[rows]
    return {
        "pairs": pairs,
        "right": _round(float(right.mean())),
        "confidence": _round(float(confidence.mean())),
        "ece": _round(quality.ece(confidence, right)),
    }


def _scopes(found: _Measured) -> Json:
    """Rows for the largest scopes; a language is one of them if contents are scoped by language."""
    sizes = Counter(chain.from_iterable(found.scopes))
    within = {scope: [scope in own for own in found.scopes] for scope, _ in sizes.most_common(SCOPES)}
    return {scope: _row(found, np.array(contents)[found.content]) for scope, contents in within.items()}


def _between(found: _Measured, least: int, most: int | None) -> Flags:
    return (found.frequency >= least) & (found.frequency <= (math.inf if most is None else most))


def _words(least: int, most: int | None) -> str:
    return f"{least} or more" if most is None else str(least) if least == most else f"{least} to {most}"


def _rows(found: JsonValue) -> list[dict[str, JsonValue]]:
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def _shown(value: JsonValue) -> str:
    return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def _round(value: float) -> float:
    return round(value, 4)
