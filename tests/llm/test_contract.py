"""One contract over every profile, against scripted servers that answer like each server.

A profile that never ran against its real server is marked `unverified`; the suite's output says so.
"""

import pytest
from openai.types import Decision
from openai.types.chat import ChatCompletion

from tagbus.stream.errors import UserError
from tagbus.stream.llm.decisions import CONTRACTS
from tagbus.stream.llm.profile import profile, profiles
from tagbus.stream.llm.shapes import Malformed
from tests.llm import answers
from tests.llm.asking import asked, judging
from tests.llm.scripted import ABSENT, Request, Say, Script, routed, serving
from tests.llm.test_faults import Recording

CHAT = answers.chat()
# The server of each profile: its decision endpoints, and chat completions.
SERVERS: dict[str, Script] = {
    "vllm": routed(decisions=answers.vllm_decisions(), systemone=answers.vllm_systemone(), completions=CHAT),
    "sglang": routed(decisions=answers.sglang_decisions(), systemone=answers.vllm_systemone(), completions=CHAT),
    "llama.cpp": routed(systemone=answers.llamacpp_systemone(), completions=CHAT),
    "openai": routed(decisions=answers.openai_decisions(), completions=CHAT),
    "litellm": routed(decisions=answers.openai_decisions(), systemone=answers.llamacpp_systemone(), completions=CHAT),
    "generic": routed(systemone=answers.llamacpp_systemone(), completions=CHAT),
}
# The answers of each contract.
SAYS: dict[str, Script] = {
    "openai": answers.openai_decisions(),
    "sglang": answers.sglang_decisions(),
    "systemone": answers.llamacpp_systemone(),
}
VERIFIED = {name: profile(name).verified for name in profiles()}
ALL = [pytest.param(name, id=name if VERIFIED[name] else f"{name}-unverified") for name in profiles()]


def test_every_profile_has_a_server_here() -> None:
    assert sorted(SERVERS) == profiles()


@pytest.mark.parametrize("name", ALL)
async def test_its_best_backend_is_found_and_answers_each_tag_in_order(name: str) -> None:
    with serving(SERVERS[name]) as server:
        async with judging(server.url, profile=name) as judge:
            (judged,) = await judge.judge([asked("Cats", "Nuclear reactors", "Cats and dogs")])
    assert judged.backend == "decision_api"
    assert [one.probability for one in judged.answers] == pytest.approx([0.95, 0.05, 0.95])
    assert judged.failure is None
    assert judged.model
    assert judged.usage.calls == 1
    assert judged.usage.tokens_in > 100
    assert judged.prompt == "v1"


@pytest.mark.parametrize("name", ALL)
async def test_one_request_holds_no_more_questions_than_the_server_takes(name: str) -> None:
    most = profile(name).questions
    with serving(SERVERS[name]) as server:
        async with judging(server.url, profile=name) as judge:
            (judged,) = await judge.judge([asked(*(f"Tag {i}" for i in range(most + 1)))])
    assert all(one.probability == pytest.approx(0.8) for one in judged.answers)
    assert judged.usage.calls == 2


@pytest.mark.parametrize("name", [one for one in ALL if profile(str(one.values[0])).logprobs != "none"])
async def test_without_a_decision_endpoint_it_asks_yes_or_no_for_each_tag(name: str) -> None:
    with serving(routed(completions=CHAT)) as server:
        async with judging(server.url, profile=name) as judge:
            (judged,) = await judge.judge([asked("Cats", "Nuclear reactors")])
    assert judged.backend == "yesno"
    assert [one.probability for one in judged.answers] == pytest.approx([0.95, 0.05], abs=0.01)
    assert judged.usage.calls == 2
    assert judged.usage.cached == 192
    for request in server.to("/chat/completions"):
        assert request.body[profile(name).token_limit] == 1
        assert request.body["top_logprobs"] == profile(name).top_logprobs


@pytest.mark.parametrize("name", ALL)
async def test_stated_scores_come_in_one_answer(name: str) -> None:
    with serving(SERVERS[name]) as server:
        async with judging(server.url, profile=name, backend="stated") as judge:
            (judged,) = await judge.judge([asked("Cats", "Nuclear reactors")])
    assert judged.backend == "stated"
    assert [one.probability for one in judged.answers] == [0.95, 0.05]
    assert judged.usage.calls == 1
    assert ("temperature" in server.requests[0].body) == profile(name).temperature
    assert profile(name).thinking_off.items() <= server.requests[0].body.items()


async def test_another_contract_on_the_same_path_is_recognised_by_its_answer() -> None:
    """SGLang's /decisions has OpenAI's path; the generic profile knows neither beforehand."""
    with serving(routed(decisions=answers.sglang_decisions())) as server:
        async with judging(server.url, profile="generic") as judge:
            (judged,) = await judge.judge([asked("Cats")])
    assert [one.probability for one in judged.answers] == [0.95]
    assert set(server.requests[-1].body["questions"][0]) == {"id", "type", "question"}


@pytest.mark.parametrize("name", ["openai", "sglang", "systemone"])
@pytest.mark.parametrize("other", ["openai", "sglang", "systemone"])
def test_no_contract_reads_another_s_answer(name: str, other: str) -> None:
    body = SAYS[other](Request("POST", "/", {}, dict(CONTRACTS[other].body("m", "text", ["Is it Cats?"])))).bytes
    if name == other:
        assert CONTRACTS[name].read(body, 1, 0.5)[0].probability == pytest.approx(0.95)
    else:
        with pytest.raises(Malformed):
            CONTRACTS[name].read(body, 1, 0.5)


def test_the_sdk_s_own_types_read_what_the_scripted_servers_say() -> None:
    request = Request("POST", "/", {}, dict(CONTRACTS["openai"].body("m", "text", ["Is it Cats?"])))
    decision = Decision.model_validate(answers.openai_decisions()(request).body)
    assert decision.answers[0].type == "predicate"
    found = ChatCompletion.model_validate(answers.completion("Yes", [("Yes", -0.1)]))
    assert found.choices[0].logprobs.content[0].top_logprobs[0].token == "Yes"


@pytest.mark.parametrize(
    ("profile_name", "adapter", "field", "value"),
    [
        ("vllm", "tagger", "model", "tagger"),
        ("sglang", "tagger", "model", "test-model:tagger"),
        ("llama.cpp", "0", "lora", [{"id": 0, "scale": 1.0}]),
    ],
)
async def test_an_adapter_is_named_as_the_server_wants_it(
    profile_name: str, adapter: str, field: str, value: object
) -> None:
    with serving(routed(completions=CHAT)) as server:
        async with judging(server.url, profile=profile_name, adapter=adapter, backend="yesno") as judge:
            await judge.judge([asked("Cats")])
    assert server.requests[-1].body[field] == value


@pytest.mark.parametrize(("name", "adapter"), [("sglang", "tagger"), ("llama.cpp", "0")])
async def test_an_adapter_is_asked_where_the_server_takes_it_and_never_the_base_model_in_its_place(
    name: str, adapter: str
) -> None:
    # Given a server whose decision endpoints take no adapter
    with serving(SERVERS[name]) as server:
        # When it is asked with one, the chat completions are
        async with judging(server.url, profile=name, adapter=adapter) as judge:
            (judged,) = await judge.judge([asked("Cats")])
        assert judged.backend == "yesno"
        assert server.requests == server.to("/chat/completions")
        # And a setting that wants the endpoints all the same is refused
        async with judging(server.url, profile=name, adapter=adapter, backend="decision_api") as judge:
            with pytest.raises(UserError, match=f"BACKEND=decision_api: decision_api: {name} takes no adapter there"):
                await judge.judge([asked("Cats")])


@pytest.mark.parametrize("name", ["vllm", "litellm"])
async def test_an_adapter_in_place_of_the_model_is_asked_at_the_decision_endpoint(name: str) -> None:
    with serving(SERVERS[name]) as server:
        async with judging(server.url, profile=name, adapter="tagger") as judge:
            (judged,) = await judge.judge([asked("Cats")])
    assert judged.backend == "decision_api"
    assert {one.body["model"] for one in server.requests} == {"tagger"}


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("vllm", "decisions"), ("vllm", "systemone"), ("sglang", "decisions"), ("sglang", "systemone"),
        ("litellm", "decisions"), ("litellm", "systemone"), ("openai", "decisions"), ("llama.cpp", "systemone"),
        ("generic", "systemone"),
    ],
)  # fmt: skip
async def test_no_answer_reports_more_than_was_reserved(name: str, path: str) -> None:
    """vLLM and SGLang report the content once for each question."""
    meter = Recording()

    def script(request: Request) -> Say:
        return SERVERS[name](request) if request.path.endswith(path) else ABSENT

    tags = [f"Tag {n}" for n in range(10)]
    with serving(script) as server:
        async with judging(server.url, meter, profile=name, backend="decision_api") as judge:
            (judged,) = await judge.judge([asked(*tags, text="What it is about. " * 20)])
    assert judged.failure is None
    reserved, reported = meter.reserved[-1], meter.settled[-1]
    assert reserved.tokens_in >= reported.tokens_in
    assert reserved.tokens_out >= reported.tokens_out
