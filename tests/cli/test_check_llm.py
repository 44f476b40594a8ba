"""`tagbus check` on the language model: a line for each check, as docs/judge.md shows them."""

import re
from pathlib import Path

import pytest

from tagbus.stream import calibrate
from tagbus.stream.app import assemble
from tagbus.stream.cli.operate.check import _llm, _price, line_of
from tagbus.stream.config import BudgetSettings, LlmSettings, Settings
from tagbus.stream.contract.release import Fingerprint, JudgeFit
from tests.llm import answers
from tests.llm.scripted import ABSENT, Request, Say, Script, routed, serving

PAGE = (Path(__file__).parents[2] / "docs" / "judge.md").read_text(encoding="utf-8")
FREE = BudgetSettings(price_in=0.0)


def test_each_check_is_a_line_with_its_name() -> None:
    script = routed(systemone=answers.llamacpp_systemone(), models=answers.models("tinylaya.gguf"))
    with serving(script) as server:
        found = list(_llm(Settings(llm=LlmSettings(url=server.url, profile="llama.cpp"))))
    assert [(one.verdict, one.subject) for one in found] == [
        ("ok", "llm model"),
        ("ok", "llm backend"),
        ("ok", "llm known yes"),
        ("ok", "llm known no"),
        ("ok", "llm two orders"),
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


def test_the_backend_that_the_calibration_is_fitted_to_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = JudgeFit.model_construct(backend="decision_api")
    curve = calibrate.uncalibrated(Fingerprint("r", "recall+judge", {})).model_copy(update={"judge": fit})
    monkeypatch.setattr(assemble, "calibration_of", lambda *_: curve)
    with serving(chatting(CHAT)) as server:
        settings = Settings(llm=LlmSettings(url=server.url, profile="llama.cpp", model="qwen3"), budget=FREE)
        (found,) = [one for one in _llm(settings) if one.subject == "llm calibration"]
    assert found.words.endswith("set TAGBUS_LLM__BACKEND=decision_api, or fit it again")


def test_settings_that_do_not_fit_are_a_finding() -> None:
    (found,) = _llm(Settings(llm=LlmSettings(url="http://127.0.0.1:9/v1", profile="none")))
    assert found.verdict == "wrong"
    assert found.words.startswith("TAGBUS_LLM__PROFILE='none': there is no such profile, expected generic, ")


def without_probabilities(request: Request) -> Say:
    return CHAT(request) if "response_format" in request.body else Say(answers.completion("Yes", model="qwen3"))


def one_alternative(request: Request) -> Say:
    if "response_format" in request.body:
        return CHAT(request)
    right = "Cats" in request.body["messages"][-1]["content"].rpartition("</data>")[2]
    return Say(answers.completion("Yes", [("Yes", -0.1 if right else -0.5)], model="qwen3"))


def thinking(request: Request) -> Say:
    if "response_format" in request.body:
        return CHAT(request)
    return Say(answers.completion("<think>", [("<think>", -0.01), ("Yes", -6.0)], model="qwen3"))


def order_decides(request: Request) -> Say:
    other = "No or Yes" in request.body["messages"][-1]["content"]
    return answers.chat(lambda text: 0.2 if other else answers.right_of_cats(text), model="qwen3")(request)


def place_decides(request: Request) -> Say:
    first = "Cats" in next(iter(request.body["questions"].values()))["instructions"]
    return answers.llamacpp_systemone(
        lambda text: 0.4 if "Cats" in text and not first else answers.right_of_cats(text)
    )(request)


def uncached(request: Request) -> Say:
    body = CHAT(request).body
    assert isinstance(body, dict)
    return Say({**body, "usage": {"prompt_tokens": 150, "completion_tokens": 1}})


def unheld(text: str, finish: str = "stop") -> Script:
    say = Say(answers.completion(text, finish=finish))
    return lambda request: say if "response_format" in request.body else CHAT(request)


def chatting(script: Script) -> Script:
    return routed(completions=script, models=answers.models("qwen3"))


CHAT = answers.chat(model="qwen3")
REFUSED = Say({"error": {"message": "Incorrect API key provided", "type": "invalid_request_error"}}, 401)
# By the heading on the page: what the server does, and settings besides model and profile `llama.cpp`.
FAILURES: dict[str, tuple[Script | None, dict[str, object]]] = {
    "The server does not answer": (None, {}),
    "The key is refused": (lambda _: REFUSED, {}),
    "The paths do not exist": (lambda _: ABSENT, {}),
    "The server has no decision endpoint": (chatting(CHAT), {}),
    "The decision endpoints take no adapter": (
        routed(systemone=answers.llamacpp_systemone(), completions=CHAT, models=answers.models("qwen3")),
        {"adapter": "0"},
    ),
    "The decision endpoint reports no label mass": (
        routed(decisions=answers.openai_decisions(model="qwen3"), models=answers.models("qwen3")),
        {"profile": "generic"},
    ),
    "The profile is unverified": (
        routed(decisions=answers.openai_decisions(model="qwen3"), models=answers.models("qwen3")),
        {"profile": "vllm"},
    ),
    "The model is not listed": (
        routed(completions=answers.chat(model="qwen3"), models=answers.models("qwen3-8b", "qwen3-14b")),
        {},
    ),
    "The server lists no models": (routed(completions=CHAT), {}),
    "Another model answers": (chatting(answers.chat(model="qwen3-mini")), {}),
    "The model judges no better than chance": (chatting(answers.chat(lambda _: 0.5, model="qwen3")), {}),
    "The server returns no probabilities": (chatting(without_probabilities), {}),
    "No probabilities, and `yesno` is fixed": (chatting(without_probabilities), {"backend": "yesno"}),
    "The server returns one alternative": (chatting(one_alternative), {}),
    "The model thinks first": (chatting(thinking), {}),
    "The order of the words decides": (chatting(order_decides), {}),
    "The order of the tags decides": (
        routed(systemone=place_decides, models=answers.models("tinylaya.gguf")),
        {"model": "tinylaya.gguf"},
    ),
    "The prefix is not cached": (chatting(uncached), {}),
    "The schema is ignored": (chatting(unheld("Paris is the capital.")), {"select": "labels"}),
    "The answer ends too early": (chatting(unheld('{"tags": [', finish="length")), {"select": "labels"}),
    "Likelihoods of names are unavailable": (chatting(CHAT), {"select": "tokens", "profile": "openai"}),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_the_page_shows_what_check_says_of_each_failure(failure: str) -> None:
    script, given = FAILURES[failure]
    assert said(script, given) == on_the_page(failure)


def test_every_failure_on_the_page_is_tested() -> None:
    assert re.findall(r"^### (.*)$", PAGE, re.MULTILINE) == list(FAILURES)


def said(script: Script | None, given: dict[str, object]) -> str:
    """The lines that are not `ok`, and `llm backend` if it is not `yesno` or no other line is left."""
    with serving(script or CHAT) as server:
        url = server.url
        settings = {"url": url, "model": "qwen3", "profile": "llama.cpp", **given}
        # Without a script: after the server has closed.
        lines = list(_llm(Settings(llm=LlmSettings(**settings), budget=FREE))) if script else []
    found = lines or list(_llm(Settings(llm=LlmSettings(**settings), budget=FREE)))
    backend = [one for one in found if one.subject == "llm backend"]
    shown = [one for one in found if one.verdict != "ok" or (one in backend and not one.words.startswith("yesno"))]
    return "".join(f"{line_of(one)}\n" for one in shown or backend).replace(url, "http://127.0.0.1:8000/v1")


def on_the_page(heading: str) -> str:
    return PAGE.partition(f"### {heading}\n")[2].partition("```\n")[2].partition("```")[0]
