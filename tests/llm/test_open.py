"""When the server is probed: at the first question, again after a change, and not at every content."""

import pytest

from tagbus.stream.config import BudgetSettings, LlmSettings
from tagbus.stream.errors import DependencyDown, UserError, Withheld
from tagbus.stream.llm import open as opening
from tagbus.stream.llm.client import NotServed, Unlimited
from tagbus.stream.llm.spending.budget import Budget, NoLedger
from tagbus.stream.llm.spending.meter import SpendingMeter
from tagbus.stream.llm.spending.prices import price_by
from tests.llm import answers
from tests.llm.asking import QUICK, asked, judging
from tests.llm.scripted import ABSENT, Request, Say, routed, serving


async def test_nothing_is_sent_before_the_first_question() -> None:
    with serving(routed(completions=answers.chat())) as server:
        async with judging(server.url):
            pass
    assert server.requests == []


async def test_the_first_model_that_the_server_lists_is_asked_where_none_is_set() -> None:
    with serving(routed(completions=answers.chat(), models=answers.models("first", "second"))) as server:
        async with judging(server.url, model=None, backend="yesno") as judge:
            await judge.judge([asked("Cats")])
    assert {one.body["model"] for one in server.to("/chat/completions")} == {"first"}


async def test_a_server_that_comes_up_later_is_looked_at_then() -> None:
    up = False

    def script(request: Request) -> Say:
        return answers.vllm_decisions()(request) if up else Say({}, 503)

    with serving(script) as server:
        async with judging(server.url, profile="vllm") as judge:
            (down,) = await judge.judge([asked("Cats", seconds=0.5)])
            up = True
            (judged,) = await judge.judge([asked("Cats")])
    assert isinstance(down.failure, DependencyDown)
    assert judged.answers[0].probability == 0.95


@pytest.mark.parametrize("listing", [Say(silent=True), answers.models("m")], ids=["silent", "lists-its-models"])
async def test_a_server_that_is_silent_opens_the_breaker_where_no_model_is_set(listing: Say) -> None:
    # Given no model, so that the server is asked for its list first, and a server that does not answer
    limits = BudgetSettings(breaker_failures=3, breaker_seconds=60, price_in=0)
    meter = SpendingMeter(
        limits, Budget(limits, ("g", "w"), lambda: 1.0, NoLedger()), price_by(limits, ""), lambda: 1.0, None
    )
    with serving(lambda request: listing if request.path.endswith("models") else Say(silent=True)) as server:
        async with judging(server.url, meter, model=None, backend="yesno", deadline_seconds=0.3) as judge:
            found = [(await judge.judge([asked("Cats")]))[0].failure for _ in range(5)]
    # Then contents do not wait for it one after the other
    assert [isinstance(one, Withheld) and one.reason == "breaker" for one in found] == [False] * 3 + [True] * 2
    assert len(server.to("/models")) == (3 if listing.silent else 1)


async def test_a_server_that_cannot_judge_is_not_looked_at_for_every_content(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda _: ABSENT) as server:
        async with judging(server.url, profile="vllm") as judge:
            with pytest.raises(UserError, match="the server cannot judge: decision_api by /decisions"):
                await judge.judge([asked("Cats")])
            looked = len(server.requests)
            for _ in range(5):
                with pytest.raises(UserError, match="the server cannot judge"):
                    await judge.judge([asked("Cats")])
            assert len(server.requests) == looked
            monkeypatch.setattr(opening, "AGAIN_SECONDS", 0.0)
            with pytest.raises(UserError):
                await judge.judge([asked("Cats")])
            assert len(server.requests) == 2 * looked


async def test_a_missing_path_is_tried_once() -> None:
    """Two contracts share the path /decisions, two backends /chat/completions."""
    with serving(lambda _: ABSENT) as server:
        async with judging(server.url) as judge:
            with pytest.raises(UserError, match="the server cannot judge"):
                await judge.judge([asked("Cats")])
    assert [one.path for one in server.requests] == ["/v1/decisions", "/v1/systemone", "/v1/chat/completions"]


async def test_a_server_that_was_changed_is_looked_at_again() -> None:
    paths = {"decisions": answers.vllm_decisions()}
    with serving(lambda request: routed(**paths)(request)) as server:
        async with judging(server.url, profile="vllm") as judge:
            (judged,) = await judge.judge([asked("Cats")])
            assert judged.backend == "decision_api"
            del paths["decisions"]
            paths["completions"] = answers.chat()
            with pytest.raises(NotServed):
                await judge.judge([asked("Cats")])
            (judged,) = await judge.judge([asked("Cats")])
    assert judged.backend == "yesno"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": None}, "TAGBUS_LLM__URL is not set"),
        ({"profile": "nobody"}, "TAGBUS_LLM__PROFILE='nobody': there is no such profile, expected generic, litellm"),
        ({"prompt": "v0"}, "TAGBUS_LLM__PROMPT='v0': there is no such version"),
        ({"profile": "openai", "adapter": "a"}, "TAGBUS_LLM__ADAPTER=a: profile openai has no adapters"),
        ({"profile": "llama.cpp", "adapter": "a"}, "TAGBUS_LLM__ADAPTER=a: llama.cpp numbers its adapters"),
    ],
)
def test_inconsistent_settings_are_refused_immediately(settings: dict[str, object], words: str) -> None:
    given = {"url": "http://127.0.0.1:9/v1", **settings}
    with pytest.raises(UserError) as raised:
        opening.open_judge(LlmSettings(**given), QUICK, Unlimited())
    assert str(raised.value).startswith(words)
