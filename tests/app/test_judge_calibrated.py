"""The judge's weight and cascade: fitted, in force, replaced."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tagbus.stream import calibrate
from tagbus.stream.app import evaluation
from tagbus.stream.app.judge import fitting, judging
from tagbus.stream.config import CascadeSettings, Settings
from tagbus.stream.contract.events import Exemplar, TaggedContent
from tagbus.stream.errors import UserError
from tests.app.judged import ANYTHING, WORDS, Told, curve, opened, settings_of


async def test_calibrate_fits_its_weight_and_its_cascade(monkeypatch: pytest.MonkeyPatch) -> None:
    right = {f"t{number}": WORDS[number % 6] for number in range(120)}
    judge = Told(lambda content, tag: 0.8 if right[content] == tag else 0.3)
    annotated = [
        Exemplar(id=name, title=f"{WORDS[(number * 5) % 6]} and {right[name]} {number}", accepted=(right[name],))
        for number, name in enumerate(right)
    ]
    async with opened(judge, monkeypatch, cascade=CascadeSettings(share=0.5)) as stack:
        fitted = await evaluation.fit(stack, annotated)
        (one,) = await stack.tagger([fitted]).tag([ANYTHING.model_copy(update={"id": "t1"})])
        assert fitted.fingerprint == stack.fingerprint()
    assert len(judge.asked) >= len(annotated)
    assert fitted.path == "recall+judge"
    assert fitted.judge is not None
    assert fitted.judge.weight > 0
    assert fitted.judge.margin is not None
    assert fitted.judge.backend == "yesno"
    assert isinstance(one, TaggedContent)


async def test_results_of_two_backends_give_no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(Told(lambda *_: 0.9), monkeypatch) as stack:
        (one,) = await stack.asking().tag([ANYTHING])
        assert isinstance(one, TaggedContent)
        other = one.model_copy(update={"versions": one.versions.model_copy(update={"backend": "stated"})})
        with pytest.raises(UserError, match="the judge was asked by stated and yesno"):
            fitting.fit([one, other], {one.id: frozenset()}, stack.fingerprint(), CascadeSettings())


async def test_a_calibration_without_the_judge_serves_until_there_is_one_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened(Told(lambda *_: 0.9), monkeypatch) as stack:
        (one,) = await stack.tagger().tag([ANYTHING])
        plain = replace(stack, settings=Settings()).tagger().versions().calibration
    assert isinstance(one, TaggedContent)
    assert one.versions.calibration == plain
    assert plain.startswith("isotonic-")


async def test_a_curve_from_the_topic_keeps_the_weight_of_the_settings_and_a_weight_from_it_replaces_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    judge = Told(lambda *_: 0.9)
    async with opened(judge, monkeypatch) as stack:
        own = curve(stack)
        own.save(tmp_path / "calibration.json")
        tagger = stack.settings.tagger.model_copy(update={"calibration": tmp_path / "calibration.json"})
        stack = replace(stack, settings=stack.settings.model_copy(update={"tagger": tagger}))
        # Fitted to decisions that say nothing of the judge
        scores, right = np.linspace(0, 1, 200), np.arange(200) % 3 == 0
        plain = calibrate.fit(scores, right, stack.fingerprint(), 20)
        (one,) = await stack.tagger([plain]).tag([ANYTHING])
        assert isinstance(one, TaggedContent)
        assert "judge" in one.path
        assert one.versions.calibration == calibrate.with_judge(plain, own.judge).name  # type: ignore[arg-type]
        assert len(judge.asked) == 1
        # Fitted to decisions on what it said: it is worth nothing
        worthless = curve(stack, weight=0.0)
        (one,) = await stack.tagger([worthless]).tag([ANYTHING])
        assert isinstance(one, TaggedContent)
        assert "judge" not in one.path
        assert len(judge.asked) == 1


def test_another_model_or_prompt_is_another_version() -> None:
    def version(**changes: Any) -> str:
        settings = settings_of()
        return judging.component.version_of(
            settings.model_copy(update={"llm": settings.llm.model_copy(update=changes)})
        )

    assert len({version(), version(model="other"), version(prompt="v2"), version(candidates=5)}) == 4
    assert version() == version(url="http://elsewhere/v1") == version(deadline_seconds=3.0)
    assert version(model=None) != version(model=None, url="http://elsewhere/v1")
