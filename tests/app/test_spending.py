"""A worker's spending on its judges, over all releases, is recorded if there is a limit."""

import pytest

from tagbus.stream.app.judge.spending import spending
from tagbus.stream.config import BudgetSettings, KafkaSettings, LlmSettings, Settings
from tagbus.stream.errors import TopicMissing, UserError, Withheld
from tagbus.stream.llm import Usage
from tagbus.stream.local.mock import MockCluster

LLM = LlmSettings(url="http://127.0.0.1:9/v1", model="m")
CALL = Usage(calls=1, tokens_in=100)


def half() -> float:
    return 0.5


async def calls(settings: Settings) -> int:
    """Attempts that went out in a worker with half the partitions."""
    async with spending(settings, half) as meter:
        assert meter is not None
        for number in range(20):
            try:
                async with meter.attempt(CALL, None) as charge:
                    charge.settle(CALL)
            except Withheld:
                return number
    return 20


async def test_a_worker_spends_its_share_and_its_successor_what_is_left() -> None:
    with MockCluster() as cluster:
        cluster.topic("budget", 1)
        first = Settings(
            llm=LLM,
            budget=BudgetSettings(tokens_per_day=1000),
            kafka=KafkaSettings(brokers=cluster.address, instance="a"),
        )
        assert await calls(first) == 5
        assert await calls(first) == 0
        for worker, expected in (("b", 5), ("c", 0)):
            kafka = KafkaSettings(brokers=cluster.address, instance=worker)
            assert await calls(first.model_copy(update={"kafka": kafka})) == expected


async def test_a_limit_needs_its_topic_and_no_limit_needs_none() -> None:
    with MockCluster() as cluster:
        settings = Settings(llm=LLM, kafka=KafkaSettings(brokers=cluster.address))
        assert await calls(settings) == 20
        cluster.topic("other", 1)
        limited = settings.model_copy(
            update={
                "budget": BudgetSettings(tokens_per_day=1000),
                "topics": settings.topics.model_copy(update={"budget": "nowhere"}),
            }
        )
        with pytest.raises(TopicMissing, match="nowhere"):
            await calls(limited)


async def test_without_a_server_there_is_nothing_to_spend() -> None:
    async with spending(Settings(), half) as meter:
        assert meter is None


@pytest.mark.parametrize(
    ("model", "limit", "said"),
    [
        (
            "m",
            {"cost_per_day": 1.5},
            "COST_PER_DAY=1.5 is a limit in money, and genai-prices has no price of 'm' at this",
        ),
        (
            None,
            {"cost_per_minute": 1.0},
            "COST_PER_MINUTE=1 is a limit in money, and TAGBUS_LLM__MODEL is not set: set",
        ),
    ],
)
async def test_a_limit_in_money_without_a_price_is_refused_at_the_start(
    model: str | None, limit: dict[str, float], said: str
) -> None:
    llm = LLM.model_copy(update={"model": model})
    with pytest.raises(UserError, match=rf"{said}.*TAGBUS_BUDGET__PRICE_IN"):
        async with spending(Settings(llm=llm, budget=BudgetSettings(**limit)), half):
            pass
    free = BudgetSettings(price_in=0.0, **limit)
    with MockCluster() as cluster:
        cluster.topic("budget", 1)
        assert await calls(Settings(llm=llm, budget=free, kafka=KafkaSettings(brokers=cluster.address))) == 20


async def test_costs_that_nobody_knows_are_not_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with spending(Settings(llm=LLM), half) as meter:
        assert meter is not None
        assert meter.cost(CALL) is None
    assert "the language model's cost is not counted: genai-prices has no price of 'm' at this server" in caplog.text
    caplog.clear()
    async with spending(Settings(llm=LLM, budget=BudgetSettings(price_in=0.0)), half) as meter:
        assert meter is not None
        assert meter.cost(CALL) == 0.0
    assert caplog.text == ""
