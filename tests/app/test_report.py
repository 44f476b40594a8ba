"""`tagbus calibrate --report`: figures of contents that took no part in the fit."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tagbus.stream import calibrate
from tagbus.stream.app.judge import fitting, report
from tagbus.stream.app.judge.report import Wanted
from tagbus.stream.config import CascadeSettings
from tagbus.stream.contract.events import Evidence, Exemplar, ScoredTag, TaggedContent, Versions
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.errors import UserError

PATH = Fingerprint("mini-1", "recall+judge", {"judge": "m-1"})
PLAIN = Fingerprint("mini-1", "recall", {})
TAGS = 6
COUNTS = {"t0": 500, "t1": 50, "t2": 5}


def contents(count: int, judge: bool) -> tuple[list[TaggedContent], list[Exemplar]]:  # noqa: FBT001
    """Scores that know something, and a judge that knows more."""
    rng = np.random.default_rng(0)
    results, annotated = [], []
    for number in range(count):
        right = rng.random(TAGS) < 0.3
        scores = np.clip(0.35 + 0.15 * right + 0.2 * rng.standard_normal(TAGS), 0, 1)
        said = np.clip(0.3 + 0.4 * right + 0.2 * rng.standard_normal(TAGS), 0, 1)
        tags = [
            ScoredTag(
                id=f"t{tag}",
                name="x",
                score=float(scores[tag]),
                confidence=0.5,
                stage="recall",
                evidence=Evidence(scores={"judge": float(said[tag])} if judge else {}),
            )
            for tag in np.argsort(-scores).tolist()
        ]
        versions = Versions(release="mini-1", calibration="none", taxonomy={})
        results.append(TaggedContent(id=f"c{number}", tags=tuple(tags), versions=versions, path=()))
        accepted = tuple(f"t{tag}" for tag in np.flatnonzero(right).tolist())
        annotated.append(
            Exemplar(id=f"c{number}", title="x", accepted=accepted, scopes=("en" if number % 2 else "de",))
        )
    return results, annotated


def made(count: int = 600, wanted: Wanted = Wanted()) -> report.Json:  # noqa: B008 - it is frozen
    results, annotated = contents(count, judge=True)
    truth = {item.id: frozenset(item.accepted) for item in annotated}
    fit = partial(fitting.fit, truth=truth, fingerprint=PATH, settings=CascadeSettings(quality=0.9))
    return report.report(results, annotated, COUNTS, fit, wanted)


def test_it_says_what_confidences_are_worth_and_what_the_judge_adds() -> None:
    figures = made()
    assert figures["contents"] == 600
    assert figures["pairs"] == 600 * TAGS
    assert figures["ece"] < 0.05  # type: ignore[operator]
    judge = figures["judge"]
    assert isinstance(judge, dict)
    assert judge["weight"] > 0  # type: ignore[operator]
    assert judge["loss_with"] < judge["loss_without"]  # type: ignore[operator]
    assert set(figures["by_scope"]) == {"en", "de"}  # type: ignore[arg-type]
    frequency = figures["by_frequency"]
    assert isinstance(frequency, dict)
    assert {name: row["pairs"] for name, row in frequency.items()} == {  # type: ignore[index, call-overload]
        "0": 1800,
        "1 to 9": 600,
        "10 to 99": 600,
        "100 or more": 600,
    }
    reliability = figures["reliability"]
    assert isinstance(reliability, list)
    assert sum(row["pairs"] for row in reliability) == 600 * TAGS  # type: ignore[index, call-overload, misc]


def test_a_higher_cut_is_more_often_right_and_covers_less() -> None:
    cuts = made()["cuts"]
    assert isinstance(cuts, list)
    low, high = cuts[2], cuts[14]
    assert isinstance(low, dict)
    assert isinstance(high, dict)
    assert high["accuracy"] > low["accuracy"]  # type: ignore[operator]
    assert high["coverage"] < low["coverage"]  # type: ignore[operator]


def test_the_cut_for_what_is_wanted_gives_it() -> None:
    rows = made(wanted=Wanted(1, accuracy=85.0, coverage=60.0))["wanted"]
    assert isinstance(rows, list)
    accuracy, coverage = rows
    assert isinstance(accuracy, dict)
    assert isinstance(coverage, dict)
    assert accuracy["accuracy"] >= 85  # type: ignore[operator]
    assert coverage["coverage"] >= 60  # type: ignore[operator]
    assert accuracy["says"] == f"TAGBUS_TAGGER__LEAST_CONFIDENCE={accuracy['cut']}"
    (never,) = made(wanted=Wanted(1, accuracy=100.5))["wanted"]  # type: ignore[misc]
    assert never["says"] == "no cut gives that"  # type: ignore[index, call-overload]


def test_people_and_charts_get_the_same_figures(tmp_path: Path) -> None:
    figures = made()
    words = report.text(figures)
    assert f"ece: {figures['ece']}" in words
    assert "held-out log loss" in words
    assert "exemplars of the tag" in words
    pytest.importorskip("matplotlib")
    assert report.draw(figures, tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_judge_it_is_of_the_scores_alone() -> None:
    results, annotated = contents(200, judge=False)
    truth = {item.id: frozenset(item.accepted) for item in annotated}

    def fit(some: list[TaggedContent]) -> calibrate.Calibration:
        pairs = fitting.pairs_of(some, truth)
        return calibrate.fit(pairs.score, pairs.right, PLAIN, len(some))

    figures = report.report(results, annotated, {}, fit, Wanted())  # type: ignore[arg-type]
    assert figures["judge"] is None
    assert "judge" not in report.text(figures)


def test_too_few_contents_are_named() -> None:
    with pytest.raises(UserError, match="a probability for"):
        made(8)
