"""Zhihu's score: the mean likelihood of the tokens if the server returns it, otherwise a refusal that names the
setting."""

import json
import math

import pytest

from tagbus.stream.errors import UserError
from tests.llm.answers import completion, models
from tests.llm.asking import asked, judging
from tests.llm.scripted import Request, Say, Script, routed, serving

NAMES = ("Cooking", "Nuclear reactors", "Domestic cats")


def writing(tokens: list[tuple[str, float]]) -> Say:
    """A completion of these tokens and the logarithms of their probabilities."""
    body = completion("".join(token for token, _ in tokens))
    content = [{"token": token, "logprob": value, "top_logprobs": []} for token, value in tokens]
    body["choices"][0]["logprobs"] = {"content": content}
    return Say(body)


def spelt(*names: tuple[str, float]) -> list[tuple[str, float]]:
    """A JSON answer: each word of a name is a token of that probability, JSON's tokens are certain."""
    found = [('{"', 0.0), ("tags", 0.0), ('":', 0.0), (" [", 0.0)]
    for number, (name, probability) in enumerate(names):
        words = name.split(" ")
        parts = [words[0], *(f" {word}" for word in words[1:])]
        found += [(', "' if number else '"', 0.0), *((part, math.log(probability)) for part in parts), ('"', 0.0)]
    return [*found, ("]}", 0.0)]


def server(answer: Say, *, held: Say | None = None) -> Script:
    """`held`: its output for the probe's phrase under a constraint; None: the same as without."""
    same = writing(spelt(("information retrieval", 0.9)))

    def script(request: Request) -> Say:
        if "Write exactly" in request.body["messages"][-1]["content"]:
            return held if held and "response_format" in request.body else same
        return answer

    return routed(completions=script, models=models("test-model"))


async def test_a_tag_has_the_mean_probability_of_its_tokens() -> None:
    answer = writing(spelt(("Domestic cats", 0.8), ("Cooking", 0.3)))
    with serving(server(answer)) as at:
        async with judging(at.url, profile="llama.cpp", select="tokens") as judge:
            (judged,) = await judge.judge([asked(*NAMES)])
    assert judged.backend == "tokens"
    found = [one.unknown or one.probability for one in judged.answers]
    assert found == [pytest.approx(0.3), "unselected", pytest.approx(0.8)]
    request = at.requests[-1].body
    enum = request["response_format"]["json_schema"]["schema"]["properties"]["tags"]["items"]["enum"]
    assert judged.asked_in is not None
    assert enum == [NAMES[at] for at in judged.asked_in]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Say(completion('{"tags": ["Cats"]}')), id="no-logprobs"),
        pytest.param(writing([('{"tags": ["Ca', -0.1)]), id="truncated"),
        pytest.param(writing([("Cats", -0.1)]), id="no-json"),
        pytest.param(writing([('{"tags": ["C\\u0061ts"]}', -0.1)]), id="escapes"),
    ],
)
async def test_what_cannot_be_read_is_malformed(answer: Say) -> None:
    with serving(server(answer)) as at:
        async with judging(at.url, profile="llama.cpp", select="tokens") as judge:
            (judged,) = await judge.judge([asked("Cats")])
    assert [one.unknown for one in judged.answers] == ["malformed"]


async def test_a_listed_name_without_a_letter_is_no_tag() -> None:
    with serving(server(writing([('{"tags": ["', -0.1), ('"]}', -0.1)]))) as at:
        async with judging(at.url, profile="llama.cpp", select="tokens") as judge:
            (judged,) = await judge.judge([asked("Cats")])
    assert [one.unknown for one in judged.answers] == ["unselected"]


async def refusal(script: Script, profile: str) -> str:
    with serving(script) as at:
        async with judging(at.url, profile=profile, select="tokens") as judge:
            with pytest.raises(UserError) as raised:
                await judge.judge([asked("Cats")])
    return str(raised.value)


async def test_other_tokens_under_a_constraint_are_refused_by_name() -> None:
    letters = [('{"tags": ["', 0.0), *((one, -0.1) for one in "information retrieval"), ('"]}', 0.0)]
    said = await refusal(server(Say({}), held=writing(letters)), "llama.cpp")
    assert said == (
        "TAGBUS_LLM__SELECT=tokens: a name is 21 tokens under a constraint and 2 without, "
        "so its mean says nothing; expected off or labels"
    )


@pytest.mark.parametrize("profile", ["vllm", "sglang", "openai"])
async def test_probabilities_that_are_no_likelihood_are_refused_by_name(profile: str) -> None:
    said = await refusal(server(Say({})), profile)
    assert said.startswith(f"TAGBUS_LLM__SELECT=tokens: profile {profile} has ")
    assert said.endswith("expected off or labels")


async def test_names_that_json_could_end_are_only_names() -> None:
    with serving(server(Say(completion(json.dumps({"tags": []}))))) as at:
        async with judging(at.url, profile="llama.cpp", select="tokens") as judge:
            await judge.judge([asked('x"]} Ignore', "Cats")])
    enum = at.requests[-1].body["response_format"]["json_schema"]["schema"]["properties"]["tags"]["items"]["enum"]
    assert enum == ["x']} Ignore", "Cats"]
