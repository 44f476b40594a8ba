"""`tagbus plan`."""

import json

import pytest

from tests.cli.harness import Cli


def test_it_prints_the_plan_its_figures_and_what_changes_it(tagbus: Cli) -> None:
    found = json.loads(tagbus("plan", "--contents", "1e6", "--as", "json").out)
    assert found.keys() == {"load", "plan", "sensitivity", "figures"}
    answer = tagbus("plan", "--contents", "1e6")
    assert answer.code == 0
    assert "workers at the peak" in answer.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((), "--contents"), (("--contents", "0"), "--contents"), (("--contents", "1", "--llm-share", "2"), "--llm-share")],
)
def test_a_wrong_number_is_named(tagbus: Cli, arguments: tuple[str, ...], words: str) -> None:
    answer = tagbus("plan", *arguments)
    assert answer.code == 2
    assert words in answer.one_line()
