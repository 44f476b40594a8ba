"""The worth of a judge of known quality beside the tagger on real titles, and the savings of the cascade.

    python bench/llm.py ../shared/data/yso-titles [--memory 20000] [--titles 2000] [--out bench/results/llm.json]

The candidates and their scores are the tagger's: recall from a memory of all tags and a random sample of
train.tsv[.xz], untrained. The judge is scripted: its log odds of right and of wrong tags are normally distributed, so
far apart that its AUC is as stated, and its stated odds are twice too extreme. It is fitted on titles of val.tsv and
measured on titles of test.tsv. One with order bias favours the tag shown first, a random candidate, as in the stage. So
the figures show what the stage does with a judge of that quality, and nothing about any model.

A judge with a weight is asked about every title, one without about the control share alone; `by_cascade` has the
figures that change if decisive titles skip it. Tokens are those of requests to a decision endpoint, without exemplars
and knowledge, four bytes each. A judge with drift is at chance from the middle of the test titles on; the weight is
fitted again after every 250 decisions, as in a worker that follows them.
"""

import argparse
import asyncio
import json
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from llm_titles import PLACES, Found, collect, read

from tagbus.stream import logistic, quality
from tagbus.stream.app.data.data_folder import DataFolder
from tagbus.stream.calibrate import Calibration
from tagbus.stream.contract.release import Fingerprint, JudgeFit
from tagbus.stream.errors import UserError
from tagbus.stream.llm.worth import cascade, fusion
from tagbus.stream.llm.worth.fusion import WINDOW, Pairs
from tagbus.stream.logistic import Flags, Floats, logit

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.llm.known_quality import Ranked, ScriptedJudge, auc

TARGET = 0.95
DRAWS = 1000
SAMPLE = 1000
# Contents between two fits: 250 decisions.
REFIT = 25
AUCS = (0.95, 0.8, 0.65, 0.5)
JUDGES = [
    *((f"AUC {auc}", ScriptedJudge(auc)) for auc in AUCS),
    *((f"AUC {auc}, order bias", ScriptedJudge(auc, bias=1.0)) for auc in AUCS),
]
CHANGES = {
    "to chance": ScriptedJudge(0.5),
    "to order bias alone": ScriptedJudge(0.5, bias=4.0),
    "to the opposite": ScriptedJudge(0.2),
}
PATH = Fingerprint("bench", "recall+judge", {"judge": "scripted"})


@dataclass(frozen=True)
class Best:
    """The best candidate of each content: whether it is right, its number, its confidence."""

    right: Flags
    place: Floats
    confidence: Floats


def best(probability: Floats, confidence: Floats, one: Ranked) -> Best:
    """Return each content's best candidate; ties go to the earlier one."""
    starts = np.unique(one.content, return_index=True)[1]
    ends = np.append(starts[1:], len(one.content))
    place = np.array([start + int(probability[start:end].argmax()) for start, end in zip(starts, ends, strict=True)])
    return Best(one.right[place], place, confidence[place])


def row(name: str, judge: ScriptedJudge, fit_on: Ranked, found: Found) -> dict[str, object]:
    """Measure a judge's worth."""
    test, rng = found.ranked, np.random.default_rng(1)
    heard, heard_then = judge.hears(fit_on.right, fit_on.first, rng), judge.hears(test.right, test.first, rng)
    pairs = fit_on.judged(judge.says(heard))
    curve = fusion.fit(pairs, PATH)
    fit = fit_of(curve)
    without = before(fit, test.score)
    fused = fusion.apply(fit, test.score, judge.says(heard_then)) if fit.weight else without
    sent = np.full(len(found.control), bool(fit.weight)) | found.control
    return {
        "name": name,
        "judge_auc": judge.auc,
        "order_bias": judge.bias,
        "weight": fit.weight,
        **figures(without, fused, curve.apply(fused), test),
        "log_loss_knowing": round(knowing(judge, fit_on, heard, test, heard_then), 4),
        **taken(found, sent),
        **({"by_cascade": by_cascade(fit, pairs, fused, found)} if fit.weight else {}),
    }


def fit_of(curve: Calibration) -> JudgeFit:
    assert curve.judge is not None
    return curve.judge


def before(fit: JudgeFit, score: Floats) -> Floats:
    """Return probabilities without the judge."""
    return fusion.apply(fit, score, np.full(len(score), np.nan))


def figures(without: Floats, fused: Floats, confidence: Floats, test: Ranked) -> dict[str, object]:
    """Measure probabilities with the judge beside those without."""
    first, after = best(without, without, test), best(fused, confidence, test)
    published = after.confidence >= 0.5
    return {
        "p_at_1": percent(after.right),
        "p_at_1_without": percent(first.right),
        "acc_at_1": percent(after.right[published]),
        "coverage_at_1": percent(published),
        "ece": round(quality.ece(confidence, test.right), 4),
        "log_loss": mean_loss(confidence, test.right),
        "log_loss_fused": mean_loss(fused, test.right),
        "auc_fused": round(auc(fused, test.right), 4),
        "auc_calibrated": round(auc(confidence, test.right), 4),
        "confidences_above_0.8": percent(confidence > 0.8),
        "confidences_above_0.8_of_the_best": percent(after.confidence > 0.8),
    }


def mean_loss(probability: Floats, right: Flags) -> float:
    return round(float(logistic.losses(probability, right).mean()), 4)


def taken(found: Found, sent: Flags) -> dict[str, object]:
    """Return the cost of asking about the `sent` contents, one request each."""
    return {
        "share_to_llm": round(float(sent.mean()), 4),
        "calls_per_content": round(float(sent.mean()), 4),
        "tokens_per_content": round(float((found.tokens * sent).mean()), 1),
    }


def by_cascade(fit: JudgeFit, pairs: Pairs, fused: Floats, found: Found) -> dict[str, object]:
    """Measure what changes if decisive contents outside the control share skip the judge."""
    then = fusion.apply(fit, pairs.score, pairs.judge)
    learnt = Ranked(pairs.score, pairs.right, pairs.content, np.zeros(len(pairs), np.bool_))
    margin = cascade.for_quality(*leads(before(fit, pairs.score), then, learnt), TARGET).margin
    test = found.ranked
    without = before(fit, test.score)
    sent = (leads(without, fused, test)[0] < margin) | found.control
    _, number = np.unique(test.content, return_inverse=True)
    kept = np.where(sent[number], fused, without)
    return {"p_at_1": percent(best(kept, kept, test).right), **taken(found, sent)}


def leads(without: Floats, fused: Floats, one: Ranked) -> tuple[Floats, Flags]:
    """Return the lead of each content's best candidate, and whether the judge replaces it."""
    starts = np.unique(one.content, return_index=True)[1]
    changed = best(without, without, one).place != best(fused, fused, one).place
    return np.array([cascade.lead(part) for part in np.split(without, starts[1:])]), changed


def drifting(name: str, judge: ScriptedJudge, fit_on: Ranked, found: Found) -> dict[str, object]:
    """Measure a judge that is at chance from the middle of the titles on, fitted again while they arrive."""
    test, rng = found.ranked, np.random.default_rng(1)
    pairs = fit_on.judged(judge.says(judge.hears(fit_on.right, fit_on.first, rng)))
    curve = fusion.fit(pairs, PATH)
    _, number = np.unique(test.content, return_inverse=True)
    contents = int(number.max()) + 1
    after = ScriptedJudge(0.5)
    says = np.where(
        number < contents // 2,
        judge.says(judge.hears(test.right, test.first, rng)),
        after.says(after.hears(test.right, test.first, rng)),
    )
    without, fused, confidence = (np.zeros(len(number)) for _ in range(3))
    sent = found.control.copy()
    until = None
    for start, end in pairwise((*range(0, contents, REFIT), contents)):
        fit, rows = fit_of(curve), (number >= start) & (number < end)
        sent[start:end] |= bool(fit.weight)
        if start >= contents // 2 and not fit.weight and until is None:
            until = int(((number >= contents // 2) & (number < start)).sum())
        known = np.where(sent[number[rows]], says[rows], np.nan)
        without[rows] = before(fit, test.score[rows])
        fused[rows] = fusion.apply(fit, test.score[rows], known) if fit.weight else without[rows]
        confidence[rows] = curve.apply(fused[rows])
        new = Pairs(test.score[rows], known, test.right[rows], test.content[rows] + fit_on.content.max() + 1)
        pairs = joined(pairs, new).newest(WINDOW)
        try:
            curve = fusion.fit(pairs, PATH)
        except UserError:
            # Too few pairs were judged for a fit: the previous one stays.
            continue
    return {
        "name": name,
        "judge_auc": judge.auc,
        "order_bias": judge.bias,
        "weight": fit_of(curve).weight,
        **figures(without, fused, confidence, test),
        **taken(found, sent),
        "decisions_until_weight_0": until,
    }


def joined(one: Pairs, other: Pairs) -> Pairs:
    """Return the pairs of both."""
    return Pairs(
        np.concatenate((one.score, other.score)),
        np.concatenate((one.judge, other.judge)),
        np.concatenate((one.right, other.right)),
        np.concatenate((one.content, other.content)),
    )


def percent(flags: Flags) -> float:
    return round(100 * float(flags.mean()), 2) if len(flags) else 0.0


def knowing(judge: ScriptedJudge, fit_on: Ranked, heard: Floats, test: Ranked, heard_then: Floats) -> float:
    """Return the log loss of a logistic fit on the judge's true distribution."""
    knots = fit_of(fusion.fit(fit_on.judged(judge.says(heard)), PATH)).before

    def columns(one: Ranked, made_of: Floats) -> Floats:
        ranker = logit(np.interp(one.score, knots.scores, knots.probabilities))
        return np.column_stack((ranker, judge.odds(made_of, PLACES)))

    found = logistic.fit(columns(fit_on, heard), fit_on.right)
    given = logistic.sigmoid(found[0] + columns(test, heard_then) @ found[1:])
    return float(logistic.losses(given, test.right).mean())


def forgotten(after: ScriptedJudge, one: Ranked) -> int | None:
    """Return the decisions until the weight is 0 after a judge of AUC 0.9 has changed; None: more than all."""
    rng = np.random.default_rng(2)
    half = len(one.right) // 2
    good, bad = ScriptedJudge(0.9), after
    says = np.where(
        np.arange(len(one.right)) < half,
        good.says(good.hears(one.right, one.first, rng)),
        bad.says(bad.hears(one.right, one.first, rng)),
    )
    pairs = one.judged(says)
    for more in range(0, len(pairs) - half, 250):
        fit = fit_of(fusion.fit(pairs.where(np.arange(len(pairs)) < half + more).newest(WINDOW), PATH))
        if not fit.weight:
            return more
    return None


def targets(judge: ScriptedJudge, fit_on: Ranked, test: Ranked) -> dict[str, float]:
    """Measure how often the cascade meets its target on the test titles, fitted on random samples of them, and the
    share it sends beside that of an oracle that knows all titles."""
    rng = np.random.default_rng(3)
    fit = fit_of(fusion.fit(fit_on.judged(judge.says(judge.hears(fit_on.right, fit_on.first, rng))), PATH))
    fused = fusion.apply(fit, test.score, judge.says(judge.hears(test.right, test.first, rng)))
    led, changed = leads(before(fit, test.score), fused, test)
    order = np.unique(led)
    least = next(margin for margin in order if (changed & (led >= margin)).mean() <= 1 - TARGET)
    met, sent = 0, []
    for _ in range(DRAWS):
        drawn = rng.choice(len(led), SAMPLE, replace=False)
        margin = cascade.for_quality(led[drawn], changed[drawn], TARGET).margin
        met += bool(1 - (changed & (led >= margin)).mean() >= TARGET)
        sent.append(float((led < margin).mean()))
    oracle = float((led < least).mean())
    return {
        "cascade_targets_met_of_1000": met,
        "changed": round(float(changed.mean()), 4),
        "sent": round(float(np.mean(sent)), 4),
        "sent_by_oracle": round(oracle, 4),
        "sent_over_oracle": round(float(np.mean(sent)) / oracle, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--memory", type=int, default=20_000)
    parser.add_argument("--titles", type=int, default=2000)
    parser.add_argument("--cache", type=Path, default=Path(".cache/llm"))
    parser.add_argument("--out", type=Path, default=Path("bench/results/llm.json"))
    given = parser.parse_args()
    files = {split: given.cache / f"{given.memory}-{given.titles}-{split}.npz" for split in ("val", "test")}
    left = {split: file for split, file in files.items() if not file.exists()}
    if left:
        asyncio.run(collect(DataFolder(given.folder), given.memory, given.titles, given.cache, left))
    val, test = read(files["val"]).ranked, read(files["test"])
    rows = [
        *(row(name, judge, val, test) for name, judge in JUDGES),
        *(drifting(f"AUC {auc}, drift", ScriptedJudge(auc), val, test) for auc in AUCS),
    ]
    report = {
        "what": __doc__.strip().splitlines()[0],
        "titles": given.titles,
        "memory": given.memory,
        "rows": rows,
        **targets(ScriptedJudge(0.8), val, test.ranked),
        "decisions_until_weight_0": {name: forgotten(judge, test.ranked) for name, judge in CHANGES.items()},
    }
    # Keep the figures of bench/llm_ablations.py, llm_calls.py and llm_prefix.py.
    earlier = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    names = {one["name"] for one in rows}
    report["rows"] = rows + [one for one in earlier.get("rows", ()) if one["name"] not in names]
    given.out.write_text(json.dumps({**earlier, **report}, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
