"""`tagbus demo --llm`: real language models on this machine, asked through the real stream. A part of the contents."""

import importlib.util
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tagbus.stream.app.data.examples import example
from tagbus.stream.cli.demo import demo, judge, scenes
from tagbus.stream.cli.demo.judge import PLUMBING, DemoJudge
from tagbus.stream.config import BudgetSettings, LlmSettings
from tagbus.stream.contract.events import Degraded, Evidence, ScoredTag, TaggedContent, Usage, Versions
from tests.cli.harness import Cli
from tests.cli.test_demo import KEYS

# What a judge adds to the line of JSON.
MORE = {"llm", "calls", "tokens", "cost", "share_skipped", "share_degraded", "fusion_weight", "fusion_weight_fitted"}
CONTENTS, EXEMPLARS = 48, 150


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So few exemplars and contents that both are done in seconds."""
    shutil.copytree(example("tags.jsonl").parent, tmp_path / "examples")
    for name, count in (("content.jsonl", CONTENTS), ("exemplars.jsonl", EXEMPLARS)):
        lines = example(name).read_text(encoding="utf-8").splitlines(keepends=True)
        (tmp_path / "examples" / name).write_text("".join(lines[:count]), encoding="utf-8")
    for module in (scenes, judge):
        monkeypatch.setattr(module, "example", lambda name: tmp_path / "examples" / name)
    # The signal handler of the demo would stay that of the tests.
    monkeypatch.setattr(demo.signal, "signal", lambda *_: None)


def installed(*packages: str) -> None:
    """Skips where they are not, which is an error when CI=true."""
    lacking = [name for name in packages if importlib.util.find_spec(name) is None]
    if lacking and os.environ.get("CI") != "true":
        pytest.skip(f"{', '.join(lacking)} is not installed")


@pytest.mark.llm
@pytest.mark.kafka
@pytest.mark.usefixtures("apache", "part")
def test_a_system_one_server_judges_what_is_not_decisive(tagbus: Cli) -> None:
    installed("sparrow_decider")
    found = tagbus("demo", "--kafka", "apache", "--llm", "decider")
    assert found.code == 0, found.err[-3000:]
    report = json.loads(found.lines[-1])
    assert report.keys() == KEYS | MORE
    assert report["llm"] == "decider"
    assert report["delivery"] == "exactly_once"
    # One request a content.
    assert 0 < report["calls"] <= report["tagged"]
    assert report["tokens"] > report["calls"]
    assert report["cost"] == 0.0
    assert 0 < report["share_skipped"] < 1
    assert report["share_degraded"] == 0.0
    assert report["fusion_weight"] == 0.1
    assert report["path"] == "prepare+encode+recall+literal+heads+rank+select+calibrate" or "judge" in report["path"]
    for words in (PLUMBING, "judge: sparrow-nano", "were decisive without it", "its weight of 0.1 is set for the demo"):
        assert words in found.out + found.err, words


def result(number: int, path: Sequence[str], degraded: Sequence[str] = (), **fields: object) -> TaggedContent:
    tags = tuple(
        ScoredTag(
            id=f"t{place}",
            name="n",
            score=0.5,
            confidence=0.5,
            stage="judge",
            evidence=Evidence(scores={"judge": 0.9 if place == number % 5 else 0.2}, unjudged=0.5 + place / 100),
        )
        for place in range(5)
    )
    versions = Versions(release="r-1", taxonomy={}, calibration="none", llm="tiny-1")
    return TaggedContent(
        id=f"c{number}",
        tags=tags,
        versions=versions,
        path=tuple(path),
        degraded=tuple(Degraded(stage="judge", reason=reason) for reason in degraded),
        **fields,  # type: ignore[arg-type]
    )


def test_the_figures_are_what_the_results_say(capsys: pytest.CaptureFixture[str]) -> None:
    asked = DemoJudge("local", LlmSettings(url="http://127.0.0.1:9/v1"), BudgetSettings(), 1.0, {})
    judged = [
        result(number, ("recall", "judge"), usage=Usage(calls=2, tokens_in=90, tokens_out=10, cost=0.001))
        for number in range(30)
    ]
    others = [result(number, ("recall",)) for number in range(30, 40)]
    late = [
        result(number, ("recall",), ("budget",), usage=Usage(calls=1, tokens_in=0, tokens_out=0))
        for number in range(40, 60)
    ]
    truth = {f"c{number}": frozenset({f"t{number % 5}"}) for number in range(60)}
    found = asked.figures([*judged, *others, *late], truth)
    assert {name: found[name] for name in MORE - {"fusion_weight_fitted"}} == {
        "llm": "local",
        "calls": 80,
        "tokens": 3000,
        "cost": 0.03,
        "share_skipped": round(10 / 60, 4),
        "share_degraded": round(20 / 60, 4),
        "fusion_weight": 0.1,
    }
    # It knows the tags that people gave, from their decisions.
    assert float(str(found["fusion_weight_fitted"])) > 0.5
    # Too few decisions say nothing.
    assert asked.figures(judged[:5], truth)["fusion_weight_fitted"] is None
    out = capsys.readouterr().out
    assert "judge: tiny-1 judged 30 contents in 80 calls of 3000 tokens" in out
    assert "20 went out degraded: budget" in out
