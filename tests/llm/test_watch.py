"""A model that changes behind its name is detected by its answers, and by the name that it reports."""

import asyncio

import pytest

from tagbus.stream.errors import DependencyDown
from tagbus.stream.llm.judge import LlmJudge
from tagbus.stream.llm.watch import Watch, pairs
from tests.llm import answers
from tests.llm.asking import asked, directly, judging
from tests.llm.scripted import Request, Say, serving


def test_there_are_twenty_pairs() -> None:
    assert sum(len(one.questions) for one in pairs()) == 20


def test_it_is_due_immediately_and_then_after_its_interval() -> None:
    watch = Watch(3600)
    assert [watch.due(), watch.due()] == [True, False]
    assert not Watch(0).due()


@pytest.mark.parametrize(
    ("probability", "model", "drift", "warnings"),
    [
        pytest.param(0.8, "a", 0.0, 0, id="same"),
        pytest.param(0.83, "a", 0.02, 0, id="noise"),
        pytest.param(0.2, "a", 0.6, 1, id="other-answers"),
        pytest.param(0.8, "b", 0.0, 1, id="other-name"),
    ],
)
async def test_a_change_is_a_warning(
    probability: float, model: str, drift: float, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    now = (0.8, "a")

    def script(request: Request) -> Say:
        return answers.openai_decisions(lambda text: 0.95 if "Cats" in text else now[0], now[1])(request)

    with serving(script) as server:
        async with directly(server.url, "decision_api", profile="vllm") as judge:
            assert isinstance(judge, LlmJudge)
            watch = Watch(3600)
            assert await watch.look(judge) is None
            now = (probability, model)
            found = await watch.look(judge)
    # A quarter of the pairs is about cats, where nothing changes.
    assert found == pytest.approx(drift * 0.75, abs=0.01)
    assert caplog.text.count("answers differ from those at the start") == warnings


async def test_a_server_that_is_down_has_not_changed() -> None:
    up = False

    def script(request: Request) -> Say:
        return answers.vllm_decisions()(request) if up else Say({}, 500)

    with serving(script) as server:
        async with directly(server.url, "decision_api", profile="vllm", deadline_seconds=0.5) as judge:
            assert isinstance(judge, LlmJudge)
            watch = Watch(3600)
            assert await watch.look(judge) is None
            (judged,) = await judge.judge([asked("Cats")])
            assert isinstance(judged.failure, DependencyDown)
            up = True
            assert await watch.look(judge) is None
            assert await watch.look(judge) == 0.0


async def test_the_judge_looks_beside_its_contents() -> None:
    with serving(answers.vllm_decisions()) as server:
        async with judging(server.url, profile="vllm", watch_seconds=3600) as judge:
            for _ in range(2):
                (judged,) = await judge.judge([asked("Cats")])
                assert judged.usage.calls == 1
            while len(server.requests) < 1 + 2 + len(pairs()):
                await asyncio.sleep(0.01)
    assert len(server.requests) == 1 + 2 + len(pairs())
