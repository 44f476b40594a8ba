"""The topic `budget`: spending survives its worker. On librdkafka's mock cluster."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tagbus.stream.config import BudgetSettings, KafkaSettings, LlmSettings, Settings, TopicSettings
from tagbus.stream.contract.budget import Amount, Spending, decode_spending, encode_spending
from tagbus.stream.contract.codec import Record, Tombstone
from tagbus.stream.errors import DependencyDown, InvalidEvent, MemoryLost, TopicMissing, Withheld
from tagbus.stream.kafka.admin.layout import layout
from tagbus.stream.kafka.identity import TopicIds
from tagbus.stream.llm.spending import ledger
from tagbus.stream.llm.spending.budget import Budget, Sum
from tagbus.stream.local.mock import MockCluster

TODAY = datetime.now(UTC).date().isoformat()
LIMITS = BudgetSettings(tokens_per_day=1000)
SECONDS = 120.0


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with MockCluster() as cluster:
        cluster.topic("budget", 1)
        yield cluster


def at(cluster: MockCluster, worker: str = "a", group: str = "tagbus") -> Settings:
    return Settings(kafka=KafkaSettings(brokers=cluster.address, instance=worker, group=group))


def spending(worker: str, tokens: int, period: str = TODAY) -> Spending:
    return Spending(
        group="tagbus", period=period, worker=worker, spent=Amount(tokens=tokens), reserved=Amount(tokens=5, cost=0.5)
    )


async def spend(settings: Settings, calls: int) -> int:
    """Send calls of 100 tokens; then kill the worker."""
    async with ledger.opened(settings) as kept:
        owner = (settings.kafka.group, settings.kafka.instance)
        budget = Budget(LIMITS, owner, lambda: 1.0, kept, lambda: datetime.fromisoformat(f"{TODAY}T10:00"))
        for number in range(calls):
            try:
                (await budget.reserve(Sum(100))).settle(Sum(100))
            except Withheld:
                return number
        return calls


async def until_it_ends(budget: Budget) -> None:
    """Reserve and release until that raises."""
    async with asyncio.timeout(SECONDS):
        while True:
            (await budget.reserve(Sum(1))).settle(Sum())
            await asyncio.sleep(0.01)


async def test_what_a_killed_worker_spent_is_spent_under_its_name_and_under_another(cluster: MockCluster) -> None:
    went = [await spend(at(cluster, worker), 4) for worker in ("a", "a", "b")]
    assert 8 <= sum(went) <= 10
    assert await spend(at(cluster, "c"), 4) + sum(went) <= 10


async def test_another_group_has_a_budget_of_its_own(cluster: MockCluster) -> None:
    assert await spend(at(cluster), 10) == 10
    assert await spend(at(cluster, group="other"), 10) == 10


async def test_workers_see_what_others_spend_while_they_run(cluster: MockCluster) -> None:
    async with ledger.opened(at(cluster, "a")) as a, ledger.opened(at(cluster, "b")) as b:
        await a.write(spending("a", 70))
        async with asyncio.timeout(SECONDS):
            while b.others(TODAY) != Sum(75, 0.5):
                await asyncio.sleep(0.01)
        assert a.others(TODAY) == Sum()


async def test_a_worker_that_no_longer_sees_what_others_spend_ends(
    cluster: MockCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    recreated: list[str] = []
    monkeypatch.setattr(TopicIds, "recreated", lambda _: recreated)
    async with ledger.opened(at(cluster, "a")) as kept:
        budget = Budget(LIMITS, ("tagbus", "a"), lambda: 1.0, kept)
        (await budget.reserve(Sum(1))).settle(Sum())
        # When the topic is created again
        recreated.append("budget")
        with pytest.raises(MemoryLost, match="no longer known: topic budget was recreated"):
            await until_it_ends(budget)


async def test_what_no_budget_asks_for_is_dropped_at_a_start(cluster: MockCluster) -> None:
    async with ledger.opened(at(cluster, "a")) as kept:
        for period in ("2020-01-01", "2020-01-01T10:15", TODAY):
            await kept.write(spending("a", 1, period))
    async with ledger.opened(at(cluster, "b")) as kept, asyncio.timeout(SECONDS):
        while kept.others("2020-01-01") != Sum() or kept.others("2020-01-01T10:15") != Sum():
            await asyncio.sleep(0.01)
        assert kept.others(TODAY) == Sum(6, 0.5)


async def test_a_broker_that_is_down_keeps_nothing_and_says_so(
    cluster: MockCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "WRITE_SECONDS", 0.2)
    async with ledger.opened(at(cluster)) as kept:
        cluster.down()
        with pytest.raises(DependencyDown, match="topic budget takes no record: nothing was confirmed"):
            await kept.write(spending("a", 1))
        cluster.up()


async def test_a_missing_topic_is_named(cluster: MockCluster) -> None:
    settings = at(cluster).model_copy(update={"topics": TopicSettings(budget="nowhere")})
    with pytest.raises(TopicMissing, match="topic nowhere does not exist; `tagbus topics create` creates it"):
        async with ledger.opened(settings):
            pass


def test_a_record_comes_back_and_its_key_says_whose_it_is() -> None:
    one = spending("a", 3)
    record = encode_spending(one)
    assert record.key == f"tagbus/{TODAY}/a".encode()
    assert decode_spending(record) == one
    assert decode_spending(Record(record.key, None)) == Tombstone(f"tagbus/{TODAY}/a")
    for key in (None, b"tagbus/2020-01-01/a"):
        with pytest.raises(InvalidEvent, match="key"):
            decode_spending(Record(key, record.value))


def test_the_topic_is_needed_where_a_judge_has_a_limit() -> None:
    llm, budget = LlmSettings(url="http://127.0.0.1:8000/v1"), LIMITS
    assert "budget" in layout(Settings(llm=llm, budget=budget))
    assert "budget" not in layout(Settings(llm=llm))
    assert "budget" not in layout(Settings(budget=budget))
