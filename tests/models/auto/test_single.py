"""One tag or none a content: the cut and its figures."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tagbus.models.auto.command import command
from tagbus.models.auto.run import REPORT, Report
from tagbus.models.auto.single import Single, best_cut
from tagbus.stream.contract.events import Exemplar, TaggedContent, Versions
from tests.models.auto.conftest import NAME

VERSIONS = Versions(release="r", calibration="none", taxonomy={})


def result(name: str, *tags: tuple[str, float]) -> TaggedContent:
    found = [
        {"id": tag, "name": tag, "score": confidence, "confidence": confidence, "stage": "recall", "evidence": {}}
        for tag, confidence in tags
    ]
    return TaggedContent.model_validate(
        {"id": name, "tags": tuple(found), "versions": VERSIONS.model_dump(), "path": ("recall",)}
    )


def of(*rows: tuple[str, float, Sequence[str]]) -> tuple[list[TaggedContent], list[Exemplar]]:
    """Contents by the first tag, its confidence, and the tags that are right."""
    results = [result(str(number), (tag, confidence), ("z", 0.01)) for number, (tag, confidence, _) in enumerate(rows)]
    items = [Exemplar(id=str(number), text="x", accepted=tuple(right)) for number, (*_, right) in enumerate(rows)]
    return results, items


ROWS = of(("a", 0.9, "a"), ("b", 0.8, "bc"), ("a", 0.6, ()), ("c", 0.5, "c"), ("a", 0.3, "b"), ("b", 0.2, ()))


def test_figures_by_the_direct_formulas() -> None:
    found = Single.of(0.5, *ROWS)
    # Given: four; right: three; contents with a tag: four.
    assert (found.given, found.precision, found.recall, found.f1) == (4, 75.0, 75.0, 75.0)
    assert found.interval[0] <= 75.0 <= found.interval[1]


def test_the_cut_has_the_best_f1() -> None:
    cut = best_cut(*ROWS)
    assert cut == 0.5
    scores = [Single.of(other, *ROWS).f1 for other in (0.1, 0.25, 0.55, 0.7, 0.85, 0.95)]
    assert max(scores) <= Single.of(cut, *ROWS).f1


def test_contents_of_one_confidence_get_a_tag_together() -> None:
    rows = of(("a", 0.5, "a"), ("a", 0.5, "b"), ("a", 0.5, "b"), ("a", 0.4, "a"))
    assert best_cut(*rows) == 0.4


def test_without_any_tag_nothing_is_given() -> None:
    results, items = [result("1")], [Exemplar(id="1", text="x", accepted=("a",))]
    assert best_cut(results, items) == 0.0
    found = Single.of(0.0, results, items)
    assert (found.given, found.precision, found.recall, found.f1) == (0, 0.0, 0.0, 0.0)


def test_it_is_measured_at_a_cut_of_held_contents(
    small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given few contents, nothing is trained, and the release says from which confidence on memory gives one tag."""
    monkeypatch.setattr("tagbus.models.auto.choice.LEAST", 1_000)
    command(str(small), tmp_path / NAME, 10, single=True)
    report = Report.model_validate_json((tmp_path / NAME / REPORT).read_bytes())
    assert report.selection.goal == "p_at_1"
    assert report.selection.parts == ()
    found = report.verdict.single
    assert found is not None
    assert 0 < found.cut < 1
    assert 0 < found.given <= found.contents == 30
    said = capfd.readouterr().err.replace("\n", " ")
    assert f"TAGBUS_TAGGER__TAGS=1 TAGBUS_TAGGER__LEAST_CONFIDENCE={found.cut:g}" in said


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("test", "one tag or none: TAGBUS_TAGGER__TAGS=1 TAGBUS_TAGGER__LEAST_CONFIDENCE=0."),
        ("val", "one tag or none: there are no validation contents, so from which confidence on is not known"),
    ],
)
def test_the_cut_needs_validation_contents_and_no_others(
    small: Path,
    tmp_path: Path,
    missing: str,
    words: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tagbus.models.auto.choice.LEAST", 1_000)
    shutil.copytree(small, tmp_path / "corpus")
    (tmp_path / "corpus" / f"{missing}.jsonl").write_text("")
    command(str(tmp_path / "corpus"), tmp_path / NAME, 10, single=True)
    report = Report.model_validate_json((tmp_path / NAME / REPORT).read_bytes())
    assert report.verdict.single is None
    assert words in capfd.readouterr().err.replace("\n", " ")
