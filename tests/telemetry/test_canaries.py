"""No text of a content and no secret is in a command's log; for a worker see tests/bus/test_traced.py."""

import json
from pathlib import Path

import pytest

from tests.cli.harness import Cli

TEXT, SECRET = "xyzzytext", "xyzzysecret"


@pytest.fixture
def tagbus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    cli = Cli(monkeypatch, capsys)
    for name, value in {
        "KAFKA__SECRETS": json.dumps({"sasl.password": SECRET}),
        "LLM__API_KEY": SECRET,
        "MEMORY__API_KEY": SECRET,
        "REGISTRY__PASSWORD": SECRET,
        "OTEL__HEADERS": json.dumps({"authorization": SECRET}),
        "KAFKA__BROKERS": "127.0.0.1:9",
        "RETRY__DEADLINE_SECONDS": "1",
    }.items():
        monkeypatch.setenv(f"TAGBUS_{name}", value)
    return cli


def lines(path: Path, *objects: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in objects))
    return path


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Path]:
    """Files with the canary in every text field of a content."""
    title = f"Bees {TEXT} in the city"
    return {
        "contents": lines(
            tmp_path / "contents.jsonl", {"id": "a", "title": title, "text": TEXT, "metadata": {"note": TEXT}}
        ),
        "tags": lines(tmp_path / "tags.jsonl", {"id": "t", "name": "bees"}, {"id": "u", "name": "cities"}),
        "exemplars": lines(
            tmp_path / "exemplars.jsonl",
            *({"id": f"e{number}", "title": f"{title} {number}", "accepted": ["t"]} for number in range(40)),
        ),
        "out": tmp_path / "out.json",
    }


# Results on standard output are what the user asked for; the log is on standard error.
COMMANDS = {
    "tag": ("tag", "{contents}", "--tags", "{tags}"),
    "explain": ("explain", "{contents}", "--tags", "{tags}", "--id", "a"),
    "validate": ("validate", "{contents}"),
    "calibrate": ("calibrate", "{exemplars}", "--tags", "{tags}", "--out", "{out}"),
    "exemplars convert": ("exemplars", "convert", "{exemplars}"),
    "config": ("config",),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_logs_a_text_or_a_secret(name: str, tagbus: Cli, given: dict[str, Path]) -> None:
    arguments = [one.format(**given) for one in COMMANDS[name]]
    answer = tagbus(*arguments)
    assert TEXT not in answer.err
    assert SECRET not in answer.err + answer.out
