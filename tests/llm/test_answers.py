"""The answer for each tag: a probability, or the reason why it is unknown."""

import math

import pytest

from tagbus.stream.llm.base import Backend
from tests.llm import answers
from tests.llm.answers import completion
from tests.llm.asking import asked, directly
from tests.llm.scripted import Request, Say, Script, routed, serving


async def answer_of(say: Say | Script, backend: Backend, *names: str, **settings: object) -> list[float | str | None]:
    """The result for each tag, in the order shown: its probability, or the reason why it is unknown."""
    with serving((lambda _: say) if isinstance(say, Say) else say) as server:
        async with directly(server.url, backend, **{"profile": "vllm", **settings}) as judge:
            (judged,) = await judge.judge([asked(*names)])
    assert len(judged.answers) == len(names)
    assert judged.asked_in is not None
    return [judged.answers[at].unknown or judged.answers[at].probability for at in judged.asked_in]


def tops(*pairs: tuple[str, float]) -> Say:
    return Say(completion("Yes", pairs))


def without_tokens() -> dict[str, object]:
    """An answer whose list of tokens is empty."""
    message = {"content": "Yes"}
    return {"choices": [{"message": message, "logprobs": {"content": []}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("say", "expected"),
    [
        pytest.param(Say(completion("Yes")), "no_logprobs", id="missing"),
        pytest.param(Say({"choices": [{"message": {"content": "Yes"}}]}), "no_logprobs", id="absent"),
        pytest.param(Say(without_tokens()), "no_logprobs", id="empty"),
        pytest.param(tops(), "no_logprobs", id="no-alternatives"),
        pytest.param(tops(("Yes", -0.6)), "label_mass", id="one-alternative"),
        pytest.param(tops(("Yes", -0.01)), 1.0, id="one-that-leaves-nothing"),
        pytest.param(tops(("Yes", -0.6), *((f"x{n}", -4.0) for n in range(4))), 1.0, id="no-is-below-all-others"),
        pytest.param(tops(("The", -0.1), ("I", -3.0)), "label_mass", id="neither-on-top"),
        pytest.param(tops(("Yes", -2.0), ("The", -0.2)), "label_mass", id="below-the-floor"),
        pytest.param(tops(("Yes", 0.0), ("No", 0.0)), "malformed", id="all-zero"),
        pytest.param(tops(("Yes", 0.0)), 1.0, id="zero-is-certain"),
        pytest.param(tops(("No", 0.0), ("Yes", -9999.0)), 0.0, id="nothing-for-yes"),
        pytest.param(tops(("Yes", -1.0), (" yes", -1.5), ("YES", -3.0), ("No", -2.5)), 0.886, id="variants"),
        pytest.param(tops(("▁Yes", -0.5), ("ĠNo", -1.2)), 0.668, id="tokenizers"),
        pytest.param(tops(("Yes", 3.0)), "malformed", id="above-one"),
        pytest.param(Say(completion("No", refusal="I cannot help")), "refusal", id="refusal"),
        pytest.param(Say(completion("", finish="content_filter")), "refusal", id="filter"),
        pytest.param(tops(("Yes", math.nan)), "malformed", id="nan"),
    ],
)
async def test_what_the_first_token_says(say: Say, expected: float | str) -> None:
    (found,) = await answer_of(say, "yesno", "Cats")
    assert found == (expected if isinstance(expected, str) else pytest.approx(expected, abs=0.001))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('{"A": 90, "B": 10}', [0.9, 0.1], id="well"),
        pytest.param('{"A": 90', ["malformed"] * 2, id="truncated"),
        pytest.param('{"A": 90}', [0.9, "missing"], id="one-missing"),
        pytest.param('{"A": 90, "B": 10, "C": 99, "Cats": 1}', [0.9, 0.1], id="outside"),
        pytest.param('{"A": 190, "B": -1}', ["malformed"] * 2, id="out-of-range"),
        pytest.param('{"A": "90", "B": true}', ["malformed"] * 2, id="no-numbers"),
        pytest.param("{}", ["missing"] * 2, id="empty"),
        pytest.param("Sure! Here are the tags: A", ["malformed"] * 2, id="constraint-ignored"),
        pytest.param("[1, 2]", ["malformed"] * 2, id="list"),
        pytest.param("", ["malformed"] * 2, id="nothing"),
    ],
)
async def test_what_a_stated_answer_says(text: str, expected: list[object]) -> None:
    assert await answer_of(Say(completion(text)), "stated", "Cats", "Dogs") == expected


def decision(*found: dict[str, object]) -> Say:
    return Say({"model": "m", "answers": list(found), "usage": {"input_tokens": 1}})


def predicate(name: str | None, probability: object) -> dict[str, object]:
    return {"type": "predicate", "name": name, "probability": probability}


@pytest.mark.parametrize(
    ("say", "expected"),
    [
        pytest.param(decision(predicate("q1", 0.2), predicate("q0", 0.7)), [0.7, 0.2], id="names-count"),
        pytest.param(decision(predicate(None, 0.7), predicate(None, 0.2)), [0.7, 0.2], id="no-names"),
        pytest.param(decision(predicate("q0", 0.7), {"type": "refusal", "name": "q1"}), [0.7, "refusal"], id="refusal"),
        pytest.param(decision(predicate("q0", 0.7)), [0.7, "missing"], id="one-missing"),
        pytest.param(
            decision(predicate("q0", 0.7), predicate("q1", 0.2), predicate("q9", 1.0)), [0.7, 0.2], id="outside"
        ),
        pytest.param(decision(predicate("q8", 0.7), predicate("q9", 0.2)), ["malformed"] * 2, id="all-outside"),
        pytest.param(decision(predicate("q0", 0.7), predicate("q0", 0.2)), ["malformed", "missing"], id="twice"),
        pytest.param(decision(predicate("q0", 1.7), predicate("q1", 0.2)), ["malformed"] * 2, id="out-of-range"),
        pytest.param(decision(predicate("q0", None), predicate("q1", 0.2)), ["malformed"] * 2, id="null"),
        pytest.param(decision(), ["missing"] * 2, id="none"),
        pytest.param(routed(decisions=answers.sglang_decisions()), ["rejected"] * 2, id="sglang-refuses"),
    ],
)
async def test_what_a_decision_says(say: Say | Script, expected: list[object]) -> None:
    assert await answer_of(say, "decision_api", "Cats", "Dogs") == expected


async def test_another_contract_behind_the_address_is_malformed() -> None:
    """The server was changed while the worker ran."""
    other = answers.sglang_decisions()

    def script(request: Request) -> Say:
        questions = [{"id": one["name"], "type": "yes_no", "question": "x"} for one in request.body["questions"]]
        return other(Request("POST", request.path, {}, {"input": "x", "questions": questions}))

    assert await answer_of(script, "decision_api", "Cats") == ["malformed"]


@pytest.mark.parametrize("contract", ["sglang", "vllm"])
async def test_label_mass_below_the_floor_is_unknown_in_a_decision_too(contract: str) -> None:
    script = {
        "sglang": routed(decisions=answers.sglang_decisions(mass=0.2)),
        "vllm": routed(systemone=answers.vllm_systemone(mass=0.2)),
    }[contract]
    profile = {"sglang": "sglang", "vllm": "llama.cpp"}[contract]
    assert await answer_of(script, "decision_api", "Cats", profile=profile) == ["label_mass"]
