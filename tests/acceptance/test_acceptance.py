"""`tagbus acceptance`, a short one."""

import json
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from tagbus.stream.app.data.examples import example
from tagbus.stream.cli.operate import acceptance
from tests.cli.harness import Cli
from tests.conftest import Broker
from tests.llm import answers
from tests.llm.scripted import routed, serving

FEW = {"tags.jsonl": 30, "exemplars.jsonl": 30, "content.jsonl": 60}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So little memory that a worker starts in a second or two."""
    folder = tmp_path / "examples"
    folder.mkdir()
    for name, count in FEW.items():
        lines = example(name).read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / name).write_text("".join(lines[:count]), encoding="utf-8")
    monkeypatch.setattr(acceptance, "example", lambda name: folder / name)
    # The signal handler of the command would stay that of the tests.
    monkeypatch.setattr(acceptance.signal, "signal", lambda *_: None)


@pytest.fixture
def tagbus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(monkeypatch, capsys)


@pytest.mark.kafka
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("small")
def test_a_short_run_passes_and_leaves_nothing(kafka: Broker, tagbus: Cli, tmp_path: Path) -> None:
    before = set(AdminClient({"bootstrap.servers": kafka.address}).list_topics(timeout=60).topics)
    with serving(routed(decisions=answers.openai_decisions())) as server:
        answer = tagbus(
            *("acceptance", "--minutes", "0.2", "--out", tmp_path),
            settings={
                "KAFKA__BROKERS": kafka.address,
                "LLM__URL": server.url,
                "LLM__MODEL": "gpt-6-luna-2026-10-06",
                "BUDGET__PRICE_IN": "0",
            },
        )
    assert answer.code == 0, answer.err
    report = json.loads((tmp_path / "acceptance.json").read_text(encoding="utf-8"))
    found = {one["name"]: one for one in report["findings"]}
    # Of so few contents none may need the judge.
    assert found.pop("budget")["verdict"] in {"not run", "passed"}
    assert {name: one["verdict"] for name, one in found.items()} == {
        "rate": "measured",
        "latency": "measured",
        "kills": "passed",
        "outages": "passed",
        "recall": "passed",
        "roll-back": "passed",
    }
    assert found["kills"]["figures"]["kills"] >= 1
    assert found["outages"]["figures"]["lost"] == found["outages"]["figures"]["doubled"] == 0
    assert set(found["outages"]["figures"]["recovery_seconds"]) == {"the language model"}
    assert found["latency"]["figures"]["p99_seconds_at_25%"] > 0
    assert "tagbus acceptance: passed" in (tmp_path / "acceptance.html").read_text(encoding="utf-8")
    after = set(AdminClient({"bootstrap.servers": kafka.address}).list_topics(timeout=60).topics)
    assert not {name for name in after - before if name.startswith("tagbus-acceptance")}


def test_a_folder_that_is_not_there_is_named(tagbus: Cli, tmp_path: Path) -> None:
    answer = tagbus("acceptance", "--out", tmp_path / "none")
    assert answer.code == 2
    assert "expected an existing folder" in answer.one_line()
