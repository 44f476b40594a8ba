"""The judge's weight follows from its gain on held-out decisions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tagbus.stream import calibrate, logistic, quality
from tagbus.stream.calibrate import Calibration
from tagbus.stream.contract.release import Fingerprint, JudgeFit
from tagbus.stream.errors import UserError
from tagbus.stream.llm.worth import fusion
from tagbus.stream.llm.worth.fusion import WINDOW, Pairs
from tagbus.stream.logistic import Floats, logit
from tests.llm.known_quality import Ranked, ScriptedJudge, ranked

PLACES = 10
PATH = Fingerprint("mini-1", "recall+judge", {"judge": "vllm-abc"})


def at(seed: int, contents: int = 1000) -> tuple[Ranked, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return ranked(contents, PLACES, rng), rng


def said(judge: ScriptedJudge, one: Ranked, rng: np.random.Generator) -> Pairs:
    return one.judged(judge.says(judge.hears(one.right, one.first, rng)))


def fit_of(curve: Calibration) -> JudgeFit:
    assert curve.judge is not None
    return curve.judge


def first_right(probability: Floats, pairs: Pairs) -> float:
    """P@1 in percent."""
    best = probability.reshape(-1, PLACES).argmax(axis=1)
    return 100 * float(pairs.right.reshape(-1, PLACES)[np.arange(len(best)), best].mean())


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_a_good_judge_improves_the_best_tag_of_contents_that_it_was_not_fitted_to(bias: float) -> None:
    judge = ScriptedJudge(0.95, bias)
    fitted = fit_of(fusion.fit(said(judge, *at(1)), PATH))
    held_out = said(judge, *at(2))
    without = fusion.apply(fitted, held_out.score, np.full(len(held_out), np.nan))
    fused = fusion.apply(fitted, held_out.score, held_out.judge)
    assert fitted.loss_with < fitted.loss_without
    assert first_right(fused, held_out) > first_right(without, held_out) + 2


@pytest.mark.parametrize("bias", [0.0, 1.0])
@pytest.mark.parametrize("auc", [0.95, 0.8, 0.65])
def test_knowing_the_judge_s_true_distribution_would_hardly_help(auc: float, bias: float) -> None:
    judge = ScriptedJudge(auc, bias)
    learnt, rng = at(3, 2000)
    heard = judge.hears(learnt.right, learnt.first, rng)
    pairs = learnt.judged(judge.says(heard))
    fitted = fit_of(fusion.fit(pairs, PATH))
    test, rng = at(4, 2000)
    heard_then = judge.hears(test.right, test.first, rng)
    fused = fusion.apply(fitted, test.score, judge.says(heard_then))

    def columns(score: Floats, heard: Floats) -> Floats:
        before = np.interp(score, fitted.before.scores, fitted.before.probabilities)
        return np.column_stack((logit(before), judge.odds(heard, PLACES)))

    best = logistic.fit(columns(learnt.score, heard), learnt.right)
    knowing = logistic.sigmoid(best[0] + columns(test.score, heard_then) @ best[1:])
    loss = logistic.losses(fused, test.right).mean()
    assert loss < logistic.losses(knowing, test.right).mean() + 0.005


@pytest.mark.parametrize("bias", [0.0, 3.0])
def test_a_judge_that_knows_nothing_has_no_weight(bias: float) -> None:
    assert fit_of(fusion.fit(said(ScriptedJudge(0.5, bias), *at(5)), PATH)).weight == 0


def test_a_judge_that_says_the_opposite_has_no_weight() -> None:
    pairs = said(ScriptedJudge(0.9), *at(6))
    assert fit_of(fusion.fit(Pairs(pairs.score, 1 - pairs.judge, pairs.right, pairs.content), PATH)).weight == 0


@pytest.mark.parametrize("after", [ScriptedJudge(0.5), ScriptedJudge(0.5, bias=4.0), ScriptedJudge(0.3)])
def test_a_judge_that_changes_loses_its_weight_within_2000_decisions(after: ScriptedJudge) -> None:
    good, rng = at(7, 300)
    bad, _ = at(8, 200)
    before, then = said(ScriptedJudge(0.9), good, rng), said(after, bad, rng)
    decided = Pairs(
        np.concatenate((before.score, then.score)),
        np.concatenate((before.judge, then.judge)),
        np.concatenate((before.right, then.right)),
        np.concatenate((before.content, then.content + 300)),
    )

    def weight(so_far: int) -> float:
        return fit_of(fusion.fit(decided.where(np.arange(len(decided)) < so_far).newest(WINDOW), PATH)).weight

    assert weight(3000) > 0.2
    weights = [weight(3000 + more) for more in (1000, 2000)]
    assert weights == [0, 0]


def test_confidences_mean_what_they_say() -> None:
    judge = ScriptedJudge(0.95)
    curve = fusion.fit(said(judge, *at(9, 2000)), PATH)
    test = said(judge, *at(10, 2000))
    fused = fusion.apply(fit_of(curve), test.score, test.judge)
    confidence = curve.apply(fused)
    assert quality.ece(confidence, test.right) <= 0.02
    assert logistic.losses(confidence, test.right).mean() <= logistic.losses(fused, test.right).mean()
    assert roc_auc_score(test.right, confidence) >= roc_auc_score(test.right, fused)


def test_what_the_judge_does_not_know_keeps_the_probability_of_the_stages_before() -> None:
    fitted = fit_of(fusion.fit(said(ScriptedJudge(0.9), *at(11)), PATH))
    scores = np.array([0.1, 0.4])
    before = np.interp(scores, fitted.before.scores, fitted.before.probabilities)
    fused = fusion.apply(fitted, scores, np.array([np.nan, 0.9]))
    assert fused[0] == before[0]
    assert fused[1] > before[1]


def test_few_decisions_give_the_judge_no_curve_of_its_own() -> None:
    pairs = said(ScriptedJudge(0.9), *at(12, 60))
    fitted = fit_of(fusion.fit(pairs, PATH))
    assert fitted.said.scores == fitted.said.probabilities == (1e-4, 1 - 1e-4)
    assert 0 < fitted.weight < 1  # it states odds that are twice too extreme


def test_a_judge_that_answered_nothing_cannot_be_fitted() -> None:
    one, _ = at(13, 60)
    with pytest.raises(UserError, match="a probability for 0 of 600 pairs"):
        fusion.fit(one.judged(np.full(600, np.nan)), PATH)


def test_the_calibration_is_named_by_the_judge_s_weight_too(tmp_path: Path) -> None:
    curve = fusion.fit(said(ScriptedJudge(0.9), *at(14)), PATH)
    curve.save(tmp_path / "c.json")
    assert calibrate.load(tmp_path / "c.json", PATH) == curve
    other = calibrate.with_judge(curve, fit_of(curve).model_copy(update={"weight": 0.0}))
    assert other.name != curve.name


def test_a_pair_counts_by_its_weight() -> None:
    """Half of the contents have a judge at chance level: drawn rarely, they count little."""
    one, rng = at(21, 400)
    good = one.content % 2 == 0
    says = np.where(
        good,
        ScriptedJudge(0.9).says(ScriptedJudge(0.9).hears(one.right, one.first, rng)),
        ScriptedJudge(0.5).says(ScriptedJudge(0.5).hears(one.right, one.first, rng)),
    )
    even = one.judged(says)
    weighed = replace(even, weight=np.where(good, 20.0, 1.0))
    assert fit_of(fusion.fit(weighed, PATH)).loss_with < fit_of(fusion.fit(even, PATH)).loss_with
    columns, right = np.column_stack((even.score, even.judge)), even.right
    twice = logistic.fit(np.repeat(columns, 2, axis=0), np.repeat(right, 2))
    assert logistic.fit(columns, right, np.full(len(right), 2.0)) == pytest.approx(twice)
