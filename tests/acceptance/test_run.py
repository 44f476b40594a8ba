"""Checks run in sequence, and which dependencies get a proxy."""

from contextlib import ExitStack
from typing import cast

import pytest

from tagbus.stream.acceptance import run
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
