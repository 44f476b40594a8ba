"""Checks run in sequence, and which dependencies get a proxy."""

from contextlib import ExitStack
from types import SimpleNamespace
from typing import cast

import pytest

from tagbus.stream.acceptance import run
from tagbus.stream.acceptance.ledger import Outcome
from tagbus.stream.acceptance.load import Act
from tagbus.stream.acceptance.report import Finding
from tagbus.stream.acceptance.run import Run
from tagbus.stream.config import Settings
from tagbus.stream.errors import DependencyDown


def test_a_check_that_fails_is_a_finding_and_the_next_one_goes_on() -> None:
    def down(_: Run) -> Finding:
        raise DependencyDown("nobody answers")

    def fine(_: Run) -> Finding:
        return Finding(name="second", verdict="passed", words="fine")

    found = list(run.findings(cast(Run, None), {"first": down, "second": fine}))
    assert [(one.name, one.verdict, one.words) for one in found] == [
        ("first", "failed", "nobody answers"),
        ("second", "passed", "fine"),
    ]


def test_workers_are_killed_again_once_all_that_was_open_at_the_last_kill_is_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = SimpleNamespace(open={"a": 0.0}, until_out=lambda _: None)
    struck: list[float] = []
    now = 0.0

    def steady(_: float, __: float, act: Act) -> None:
        nonlocal now
        for now in (5.0, 9.0, 13.0, 17.0, 18.0):
            if now == 18.0:
                load.open = {"b": 0.0}
            act(now)

    fleet = SimpleNamespace(keep=lambda: None, kill=lambda: struck.append(now))
    fine = Outcome(sent=2, tagged=2, dead_lettered=0, lost=0, invented=0, doubled=0)
    monkeypatch.setattr(run, "compare", lambda _: fine)
    found = run.kills(
        cast(Run, SimpleNamespace(seconds=100, settings=Settings(), load=load, fleet=fleet, keep=None, steady=steady))
    )
    assert struck == [9.0, 18.0]
    assert (found.verdict, found.figures["kills"]) == ("passed", 2)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"encoder": {"kind": "triton", "address": "127.0.0.1:8001,127.0.0.1:8002"}}, {"Triton"}),
        ({"encoder": {"kind": "triton", "tls": True}}, set()),
        ({"memory": {"kind": "server", "url": "http://127.0.0.1:6333"}}, {"Qdrant"}),
        ({"memory": {"kind": "server", "url": "https://127.0.0.1:6333"}}, set()),
        ({"llm": {"url": "http://127.0.0.1:8000/v1", "model": "m"}}, {"the language model"}),
        # The calibration of a judge whose model is not named holds for its address.
        ({"llm": {"url": "http://127.0.0.1:8000/v1"}}, set()),
    ],
)
def test_what_a_proxy_can_stand_before(given: dict[str, object], found: set[str]) -> None:
    with ExitStack() as stack:
        proxies, variables = run.proxies(Settings.model_validate(given), stack)
        assert proxies.keys() == found
        assert len(variables) == len(found)
        assert all(proxies[name].address in value for name, value in zip(proxies, variables.values(), strict=True))
