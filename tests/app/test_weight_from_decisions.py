"""The judge's weight and its cascade, fitted to people's decisions while the service runs."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tagbus.stream import calibrate
from tagbus.stream.app.judge.fitting import learnt
from tagbus.stream.config import CascadeSettings
from tagbus.stream.contract.decision import JudgedTag
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.feedback.learning import AskedContent, Decided
from tagbus.stream.llm.worth.cascade import is_control
from tests.llm.known_quality import ScriptedJudge, ranked

PATH = Fingerprint("r-1", "recall+judge", {"judge": "m-1"})
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
PLACES = 10
NO_CASCADE = CascadeSettings()


def decided(contents: int, judge: ScriptedJudge, seed: int, start: int = 0) -> list[AskedContent]:
    """Contents whose every tag people decided about, as they were shown by the confidence of the stages before."""
    rng = np.random.default_rng(seed)
    one = ranked(contents, PLACES, rng)
    says = judge.says(judge.hears(one.right, one.first, rng))
    before = calibrate.fit(one.score, one.right, PATH, contents).apply(one.score)
    found = []
    for number in range(contents):
        rows = range(number * PLACES, (number + 1) * PLACES)
        tags = tuple(JudgedTag(tag=f"t{row}", score=one.score[row], judge=says[row]) for row in rows)
        people = {f"t{row}": Decided(bool(one.right[row]), float(before[row]), 1.0) for row in rows}
        time = NOON + timedelta(seconds=start + number)
        found.append(AskedContent(f"c{start + number}", time, PATH, tags, people))
    return found


def test_a_good_judge_gets_a_weight() -> None:
    found = learnt(decided(100, ScriptedJudge(0.9), 1), None, NO_CASCADE)
    assert found is not None
    assert found.curve is not None
    assert found.curve.judge is not None
    assert found.new_loss < found.old_loss
    assert found.curve.judge.weight > 0
    assert found.curve.judge.margin is None
    assert found.curve.fingerprint == PATH
    # The newest fifth takes no part in the fit.
    assert (found.pairs, found.curve.fitted_on) == (1000, 800)


def test_the_fit_is_for_the_backend_that_was_asked_and_another_one_s_is_no_measure() -> None:
    contents = [replace(one, backend="stated") for one in decided(200, ScriptedJudge(0.9), 5)]
    first = learnt(contents, None, NO_CASCADE)
    assert first is not None
    assert first.curve is not None
    assert first.curve.judge is not None
    assert first.curve.judge.backend == "stated"
    # Compared with what the stages before showed, as without a fit.
    again = learnt([replace(one, backend="yesno") for one in contents], first.curve, NO_CASCADE)
    assert again is not None
    assert again.old_loss == first.old_loss


def test_one_that_judges_at_chance_gets_none() -> None:
    found = learnt(decided(200, ScriptedJudge(0.5), 2), None, NO_CASCADE)
    assert found is not None
    assert found.curve is None or (found.curve.judge is not None and found.curve.judge.weight == 0)


@pytest.mark.parametrize("after", [ScriptedJudge(0.5), ScriptedJudge(0.5, bias=4.0), ScriptedJudge(0.2)])
def test_within_2000_decisions_of_a_change_for_the_worse_the_weight_is_0(after: ScriptedJudge) -> None:
    before = decided(200, ScriptedJudge(0.95), 3)
    good = learnt(before, None, NO_CASCADE)
    assert good is not None
    assert good.curve is not None
    changed = learnt([*before, *decided(200, after, 4, 200)], good.curve, NO_CASCADE)
    assert changed is not None
    assert changed.curve is not None
    assert changed.curve.judge is not None
    assert changed.curve.judge.weight == 0
    assert changed.new_loss < changed.old_loss


def test_what_is_no_better_is_not_taken() -> None:
    contents = decided(200, ScriptedJudge(0.9), 5)
    first = learnt(contents, None, NO_CASCADE)
    assert first is not None
    again = learnt(contents, first.curve, NO_CASCADE)
    assert again is not None
    assert (again.old_loss, again.curve) == (again.new_loss, None)


def test_too_few_answers_give_no_fit_and_so_do_tags_that_are_all_right() -> None:
    assert learnt(decided(19, ScriptedJudge(0.9), 8), None, NO_CASCADE) is None
    unasked = [
        AskedContent(
            *(one.content, one.time, one.fingerprint),
            tuple(JudgedTag(tag=tag.tag, score=tag.score) for tag in one.tags),
            one.decided,
        )
        for one in decided(100, ScriptedJudge(0.9), 9)
    ]
    assert learnt(unasked, None, NO_CASCADE) is None
    assert learnt([all_right(one) for one in decided(100, ScriptedJudge(0.9), 10)], None, NO_CASCADE) is None
    assert learnt([], None, NO_CASCADE) is None


def all_right(one: AskedContent) -> AskedContent:
    people = {tag: Decided(True, found.confidence, 1.0) for tag, found in one.decided.items()}
    return AskedContent(one.content, one.time, one.fingerprint, one.tags, people)


def test_the_cascade_is_fitted_to_the_control_share_alone() -> None:
    contents = decided(200, ScriptedJudge(0.9), 11)
    settings = CascadeSettings(share=0.5, control=0.4)
    others = [one for one in contents if not is_control(one.content, 0.4)]
    found = margin_of(contents, settings)
    assert found is not None
    # What the others' tags are makes no difference to it.
    flat = [
        AskedContent(
            *(one.content, one.time, one.fingerprint),
            (*one.tags, JudgedTag(tag="more", score=9.0)),
            one.decided,
        )
        if one in others
        else one
        for one in contents
    ]
    assert margin_of(flat, settings) == found


def test_without_control_contents_the_margin_stays() -> None:
    contents = [one for one in decided(300, ScriptedJudge(0.9), 12) if not is_control(one.content, 0.2)]
    settings = CascadeSettings(quality=0.9, control=0.2)
    assert margin_of(contents, settings) is None
    first = learnt(contents[:120], None, settings)
    assert first is not None
    assert first.curve is not None
    assert first.curve.judge is not None
    poor = calibrate.with_judge(first.curve, first.curve.judge.model_copy(update={"margin": 1.5, "weight": 0.01}))
    again = learnt(contents, poor, settings)
    assert again is not None
    assert again.curve is not None
    assert again.curve.judge is not None
    assert again.curve.judge.margin == 1.5


def margin_of(contents: Sequence[AskedContent], settings: CascadeSettings) -> float | None:
    found = learnt(contents, None, settings)
    assert found is not None
    assert found.curve is not None
    assert found.curve.judge is not None
    assert found.curve.judge.weight > 0
    return found.curve.judge.margin
