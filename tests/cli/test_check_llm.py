"""`tagbus check` on the language model: a line for each check, none where no server is set."""

import pytest

from tagbus.stream.cli.operate.check import _llm, _price
from tagbus.stream.config import BudgetSettings, LlmSettings, Settings
from tests.llm import answers
from tests.llm.scripted import routed, serving


def test_each_check_is_a_line_with_its_name() -> None:
    script = routed(systemone=answers.llamacpp_systemone(), models=answers.models("tinylaya.gguf"))
    with serving(script) as server:
        found = list(_llm(Settings(llm=LlmSettings(url=server.url, profile="llama.cpp"))))
    assert [(one.verdict, one.subject) for one in found] == [
        ("ok", "llm model"),
        ("ok", "llm backend"),
        ("ok", "llm known yes"),
        ("ok", "llm known no"),
        ("unsure", "llm price"),
    ]


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (BudgetSettings(price_in=0.5, price_out=2.0), ("ok", "USD 0.5 of a million tokens of prompts, 2 of answers")),
        (BudgetSettings(), ("unsure", "costs are not counted: TAGBUS_LLM__MODEL is not set: set TAGBUS_BUDGET__PRICE")),
        (BudgetSettings(cost_per_day=1.0), ("wrong", "costs are not counted: ")),
    ],
)
def test_what_the_model_costs_is_a_line(budget: BudgetSettings, expected: tuple[str, str]) -> None:
    found = _price(Settings(llm=LlmSettings(url="http://127.0.0.1:9/v1"), budget=budget))
    assert found.verdict == expected[0]
    assert found.words.startswith(expected[1])


def test_settings_that_do_not_fit_are_a_finding() -> None:
    (found,) = _llm(Settings(llm=LlmSettings(url="http://127.0.0.1:9/v1", profile="none")))
    assert found.verdict == "wrong"
    assert found.words.startswith("TAGBUS_LLM__PROFILE='none': there is no such profile, expected generic, ")
