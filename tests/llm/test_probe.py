"""The reports of `tagbus check` on a server, one test for each feature that a server may silently ignore."""

import math

import pytest

from tagbus.stream.config import LlmSettings
from tagbus.stream.llm.probe import Check, examine
from tests.llm import answers
from tests.llm.answers import completion
from tests.llm.asking import QUICK
from tests.llm.scripted import Request, Say, Script, routed, serving

CHAT = answers.chat()


async def found(script: Script, **settings: object) -> dict[str, Check]:
    """The last check of each name."""
    with serving(script) as server:
        given = {"model": "test-model", "profile": "llama.cpp", **settings}
        return {one.name: one for one in await examine(LlmSettings(url=server.url, **given), QUICK)}


def chatting(script: Script, *names: str) -> Script:
    return routed(completions=script, models=answers.models(*(names or ("test-model",))))


async def test_a_server_that_does_all_it_should() -> None:
    checks = await found(chatting(CHAT), select="labels")
    assert [one.name for one in checks.values() if one.verdict != "ok"] == []
    assert list(checks) == [
        "model", "backend", "known yes", "known no", "prefix reuse", "logprobs", "two orders", "constraint",
    ]  # fmt: skip


async def test_a_decision_endpoint_needs_no_checks_of_chats() -> None:
    script = routed(systemone=answers.llamacpp_systemone(), models=answers.models("test-model"))
    checks = await found(script)
    assert checks["backend"].words == "decision_api"
    assert checks["model"] == Check(
        "unsure",
        "model",
        "the answers report tinylaya.gguf where test-model was asked: a calibration belongs to what is reported",
    )
    assert "logprobs" not in checks


async def test_why_a_better_backend_is_not_used() -> None:
    script = routed(systemone=answers.LLAMACPP_501, completions=CHAT, models=answers.models("test-model"))
    checks = await found(script)
    assert checks["backend"].words.startswith("yesno; decision_api by /systemone (systemone): ")
    assert "answered 501" in checks["backend"].words


@pytest.mark.parametrize(("fitted", "verdict"), [("decision_api", "unsure"), ("yesno", None), (None, None)])
async def test_a_calibration_that_is_fitted_to_another_backend(fitted: str | None, verdict: str | None) -> None:
    with serving(chatting(CHAT)) as server:
        settings = LlmSettings(url=server.url, model="test-model", profile="llama.cpp")
        checks = {one.name: one for one in await examine(settings, QUICK, fitted)}
    assert (checks["calibration"].verdict if "calibration" in checks else None) == verdict
    if verdict:
        assert checks["calibration"].words.startswith(
            "it is fitted to decision_api, so answers of yesno change nothing"
        )


async def test_an_unverified_profile_is_named() -> None:
    checks = await found(routed(decisions=answers.vllm_decisions()), profile="vllm")
    assert checks["profile"].verdict == "unsure"
    assert "vllm is unverified" in checks["profile"].words


async def test_a_model_that_the_server_does_not_list() -> None:
    checks = await found(chatting(CHAT, "other"))
    assert checks["model"].verdict == "wrong"
    assert "expected one of other" in checks["model"].words


async def test_a_model_behind_an_alias_is_recognised_by_the_answer() -> None:
    checks = await found(chatting(answers.chat(model="other-model")))
    assert "the answers report other-model" in checks["model"].words


async def test_a_model_that_judges_at_chance() -> None:
    checks = await found(chatting(answers.chat(lambda _: 0.5)))
    assert checks["known yes"].verdict == "unsure"
    assert "Cats 0.50 is no more than Nuclear reactors 0.50" in checks["known yes"].words


async def test_without_logprobs_only_stated_scores_are_left() -> None:
    def script(request: Request) -> Say:
        return CHAT(request) if "response_format" in request.body else Say(completion("Yes"))

    checks = await found(chatting(script))
    assert checks["backend"].words.startswith("stated; ")
    assert "no_logprobs" in checks["backend"].words
    checks = await found(chatting(script), backend="yesno")
    assert checks["server"].verdict == "wrong"
    assert "the server cannot judge with TAGBUS_LLM__BACKEND=yesno: yesno: " in checks["server"].words
    assert checks["logprobs"].words == "no token probabilities are returned, so the share of yes is unknown"


async def test_one_alternative_alone_is_no_share() -> None:
    def script(request: Request) -> Say:
        return Say(completion("Yes", [("Yes", math.log(0.9 if "Cats" in str(request.body["messages"]) else 0.6))]))

    checks = await found(chatting(script))
    assert checks["logprobs"] == Check(
        "wrong",
        "logprobs",
        "alternatives of a token: 1 came, 20 were asked for: the share of yes among both cannot be told",
    )


async def test_a_first_token_that_is_neither() -> None:
    say = Say(completion("<think>", [("<think>", -0.01), ("Yes", -6.0)]))
    checks = await found(chatting(lambda _: say), backend="yesno")
    assert "label_mass" in checks["server"].words
    words = "'<think>' and not yes or no comes first: the model, or its template, begins otherwise"
    assert checks["first token"] == Check("wrong", "first token", words)
    # Stated scores need none.
    checks = await found(chatting(lambda request: CHAT(request) if "response_format" in request.body else say))
    assert checks["backend"].words.startswith("stated; ")
    assert checks["first token"] == Check("unsure", "first token", words)
    assert "server" not in checks


async def test_an_order_that_decides() -> None:
    def script(request: Request) -> Say:
        first = "No or Yes" in request.body["messages"][-1]["content"]
        return answers.chat(lambda text: 0.2 if first else answers.right_of_cats(text))(request)

    checks = await found(chatting(script))
    assert checks["two orders"].verdict == "unsure"
    assert checks["two orders"].words.startswith("0.95 for yes or no, 0.20 for no or yes")


async def test_a_place_in_the_request_that_decides() -> None:
    def script(request: Request) -> Say:
        first, *_ = request.body["questions"]
        return answers.openai_decisions(lambda text: 0.9 if text == first["instructions"] else 0.3)(request)

    checks = await found(routed(decisions=script, models=answers.models("test-model")), profile="openai")
    words = "Cats 0.90 as the first tag of a request, 0.30 as the second: its place decides more than the content"
    assert checks["two orders"] == Check("unsure", "two orders", words)


async def test_a_prefix_that_is_not_reused() -> None:
    def script(request: Request) -> Say:
        say = CHAT(request)
        assert isinstance(say.body, dict)
        return Say({**say.body, "usage": {"prompt_tokens": 150, "completion_tokens": 1}})

    checks = await found(chatting(script))
    assert checks["prefix reuse"].verdict == "unsure"


@pytest.mark.parametrize(
    ("say", "words"),
    [
        (Say(completion("Paris is the capital of France.")), "the model's answer is free-form"),
        (Say(completion('{"tags": [', finish="length")), "its answer ends too early"),
        (Say({"error": "unknown field"}, 400), "the server rejects response_format"),
    ],
)
async def test_a_constraint_that_is_not_obeyed(say: Say, words: str) -> None:
    def script(request: Request) -> Say:
        return say if "response_format" in request.body else CHAT(request)

    checks = await found(chatting(script), select="labels")
    assert checks["constraint"].verdict == "wrong"
    assert words in checks["constraint"].words


async def test_a_wrong_key() -> None:
    checks = await found(lambda _: Say({"error": {"message": "Incorrect API key"}}, 401))
    assert checks["server"].verdict == "wrong"
    assert checks["server"].words.startswith("TAGBUS_LLM__API_KEY: ")


async def test_no_server() -> None:
    with serving(CHAT) as server:
        url = server.url
    (check,) = await examine(LlmSettings(url=url, profile="llama.cpp"), QUICK)
    assert check.name == "server"
    assert "the connection failed" in check.words
