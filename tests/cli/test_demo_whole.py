"""`tagbus demo --all`: its requests to the views and the recommenders. The whole run is in tests/whole."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest

from tagbus.stream.cli.demo import whole
from tagbus.stream.cli.demo.whole import Whole
from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Evidence, ScoredTag, TaggedContent, Versions
from tagbus.stream.errors import DependencyDown
from tests.llm.scripted import Request, Say, serving

ROOT = Path(__file__).parents[2]


def result(content: str, confidence: float) -> TaggedContent:
    tag = ScoredTag(id="t", name="n", score=0.5, confidence=confidence, stage="rank", evidence=Evidence(scores={}))
    versions = Versions(release="r-1", taxonomy={}, calibration="none")
    return TaggedContent(id=content, tags=(tag,), versions=versions, path=("recall",))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Whole]:
    monkeypatch.setattr(whole, "QdrantServer", lambda: nullcontext())
    with ExitStack() as stack:
        yield Whole(Settings.model_construct(), stack)


def test_contents_that_the_views_show_otherwise_are_counted(made: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "DEADLINE_SECONDS", 0.3)
    asked: list[str] = []

    def views(request: Request) -> Say:
        asked.append(request.path)
        if request.path == "/contents/late" and asked.count(request.path) == 1:
            return Say({"error": "not known here"}, 404)
        return Say({"tags": [{"id": "t", "confidence": 0.25}]})

    with serving(views) as server:
        made._port = server.server_address[1]
        assert made._agree({"a/b": result("a/b", 0.25), "late": result("late", 0.25)}) == 0
        assert made._agree({"other": result("other", 0.75)}) == 1
    assert "/contents/a%2Fb" in asked


def test_a_recommender_that_fails_says_why() -> None:
    with pytest.raises(DependencyDown, match=r"^examples/recommenders/from_views\.py: .*views"):
        whole._recommended("from_views.py")


def test_make_demo_all_installs_and_starts_everything() -> None:
    said = subprocess.run(
        ["make", "-n", "--no-print-directory", "demo", "ALL=1", "VENV=nowhere"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert said.splitlines()[-1] == "nowhere/bin/tagbus demo --kafka apache --encoder triton --llm decider --all"
    for extras in (".[triton]", ".[embedded,views]", ".[llm]"):
        assert extras in said, extras
