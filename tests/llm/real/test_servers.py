"""The contract on the real servers: sparrow-decider (System One) and llama.cpp with SmolLM2 (chat completions)."""

import httpx2
import pytest

from tagbus.stream.config import LlmSettings
from tagbus.stream.errors import UserError
from tagbus.stream.llm.probe import examine
from tagbus.stream.llm.prompts import tokens
from tagbus.stream.local.judges import DeciderServer, LlamaServer
from tests.llm.asking import QUICK, asked, directly, judging
from tests.llm.hostile import CONTENTS
from tests.llm.kinds import KINDS
from tests.llm.real.conftest import SECONDS

TAGS = ("Cats", "Nuclear reactors", "Cooking")


async def test_a_system_one_server_answers_each_tag(decider: DeciderServer) -> None:
    async with judging(decider.url, model=None, deadline_seconds=SECONDS) as judge:
        (one, again) = await judge.judge([asked(*TAGS, text="House cats purr.", seconds=SECONDS)] * 2)
    assert one.backend == "decision_api"
    assert one.model is not None
    assert one.model.startswith("sparrow-nano")
    assert all(answer.probability is not None and 0 <= answer.probability <= 1 for answer in one.answers)
    assert [answer.probability for answer in again.answers] == [answer.probability for answer in one.answers]
    assert one.usage.calls == 1


async def test_a_system_one_server_passes_the_check(decider: DeciderServer) -> None:
    checks = await examine(LlmSettings(url=decider.url), QUICK)
    assert [one.name for one in checks if one.verdict == "wrong"] == []
    (backend,) = [one for one in checks if one.name == "backend"]
    assert backend.words.startswith("decision_api; decision_api by /decisions (openai): ")


async def test_hostile_contents_get_an_answer_each(decider: DeciderServer) -> None:
    contents = [asked("Cats", text=text, content_id=f"c{n}", seconds=SECONDS) for n, (_, text) in enumerate(CONTENTS)]
    async with judging(decider.url, model=None, deadline_seconds=SECONDS) as judge:
        found = await judge.judge(contents)
    assert all(len(judged.answers) == 1 and judged.answers[0].probability is not None for judged in found)


async def test_llama_cpp_answers_yes_or_no_by_the_first_token(llama: LlamaServer) -> None:
    async with judging(llama.url, model=None, profile="llama.cpp", deadline_seconds=SECONDS, in_flight=1) as judge:
        (judged,) = await judge.judge([asked(*TAGS, text="House cats purr. " * 20, seconds=SECONDS)])
    assert judged.backend == "yesno"
    assert all(one.probability is not None and 0 < one.probability < 1 for one in judged.answers)
    assert judged.usage.calls == 3
    # The content precedes the tag: of the second and the third question all but the tag is cached.
    assert judged.usage.cached > 0.5 * judged.usage.tokens_in
    assert judged.model == "SmolLM2-135M-Instruct.Q4_1"


async def test_llama_cpp_states_scores_under_a_constraint(llama: LlamaServer) -> None:
    async with directly(llama.url, "stated", profile="llama.cpp", deadline_seconds=SECONDS) as judge:
        (judged,) = await judge.judge([asked(*TAGS[:2], seconds=SECONDS)])
    assert judged.backend == "stated"
    # A small model may answer 1,000 percent; it can only answer numbers.
    assert {one.unknown for one in judged.answers} <= {None, "malformed"}
    assert judged.failure is None


async def test_the_check_names_what_llama_cpp_can_and_what_it_takes_in_silence(llama: LlamaServer) -> None:
    settings = LlmSettings(url=llama.url, profile="llama.cpp", select="labels", model="gpt-17")
    found = await examine(settings, QUICK)
    checks = {one.name: one for one in found}
    assert found[0].name == "model"
    assert found[0].verdict == "wrong"
    assert "TAGBUS_LLM__MODEL=gpt-17 is not listed" in found[0].words
    assert checks["backend"].words.startswith("yesno; decision_api by /systemone (systemone): ")
    assert "answered 501" in checks["backend"].words
    for name in ("logprobs", "prefix reuse", "constraint"):
        assert checks[name].verdict == "ok", checks[name]


async def test_the_generic_profile_serves_llama_cpp_as_well(llama: LlamaServer) -> None:
    async with directly(llama.url, "yesno", profile="generic", deadline_seconds=SECONDS) as judge:
        (judged,) = await judge.judge([asked("Cats", seconds=SECONDS)])
    assert judged.failure is None
    assert judged.answers[0].unknown in (None, "label_mass")


async def test_llama_cpp_writes_other_tokens_under_a_constraint_and_the_mode_is_refused(llama: LlamaServer) -> None:
    settings = {"profile": "llama.cpp", "select": "tokens", "deadline_seconds": SECONDS}
    async with judging(llama.url, **settings) as judge:
        with pytest.raises(UserError, match=r"TAGBUS_LLM__SELECT=tokens: a name is \d+ tokens under a constraint"):
            await judge.judge([asked("Cats", seconds=SECONDS)])


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_of_text_has_more_tokens_than_estimated(llama: LlamaServer, kind: str) -> None:
    address = llama.url.removesuffix("/v1") + "/tokenize"
    found = httpx2.post(address, json={"content": KINDS[kind]}, timeout=SECONDS).json()["tokens"]
    assert 0 < len(found) <= tokens(KINDS[kind])
