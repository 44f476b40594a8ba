"""No call is sent that the budget does not cover, whatever is killed and wherever partitions move."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from tagbus.stream.config import BudgetSettings
from tagbus.stream.contract.budget import Spending
from tagbus.stream.errors import DependencyDown, Withheld
from tagbus.stream.llm.spending.budget import Budget, Sum

CALL = Sum(tokens=100)
START = datetime(2026, 11, 28, 10, 15, tzinfo=UTC)


class Topic:
    """The newest record of each key, immediately visible to all workers."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], Spending] = {}
        self.writes = 0
        self.down = False


class TopicLedger:
    """A worker's view of it, without repeats of the records from before its start."""

    def __init__(self, topic: Topic, worker: str) -> None:
        self._topic, self._worker = topic, worker
        self._before = {period: _sum(one) for (period, name), one in topic.records.items() if name == worker}

    def own(self, period: str) -> Sum:
        return self._before.get(period, Sum())

    def others(self, period: str) -> Sum:
        found = [one for (of, name), one in self._topic.records.items() if of == period and name != self._worker]
        return sum((_sum(one) for one in found), Sum())

    async def write(self, spending: Spending) -> None:
        await asyncio.sleep(0)
        if self._topic.down:
            raise DependencyDown("no broker answers")
        self._topic.writes += 1
        self._topic.records[spending.period, spending.worker] = spending

    def drop(self, period: str) -> None:
        self._topic.records.pop((period, self._worker), None)


def _sum(one: Spending) -> Sum:
    return Sum(one.spent.tokens + one.reserved.tokens, one.spent.cost + one.reserved.cost)


def budget(
    topic: Topic, worker: str = "a", share: Callable[[], float] = lambda: 1.0, now: datetime = START, **limits: Any
) -> Budget:
    settings = BudgetSettings(**(limits or {"tokens_per_day": 10_000}))
    return Budget(settings, ("tagbus", worker), share, TopicLedger(topic, worker), lambda: now)


async def spend(one: Budget, calls: int = 1000, amount: Sum = CALL) -> int:
    """Make calls that are sent and settled."""
    for number in range(calls):
        try:
            reservation = await one.reserve(amount)
        except Withheld:
            return number
        reservation.settle(amount)
    return calls


async def test_calls_go_out_until_the_limit() -> None:
    assert await spend(budget(Topic())) == 100


@pytest.mark.parametrize(
    ("limits", "calls"),
    [
        ({"tokens_per_minute": 1000}, 10),
        ({"tokens_per_day": 1000}, 10),
        ({"cost_per_minute": 0.05}, 5),
        ({"cost_per_day": 0.05, "tokens_per_day": 300}, 3),
        ({"cost_per_day": 0.02, "tokens_per_minute": 300}, 2),
        ({"requests_per_minute": 1}, 1000),
    ],
)
async def test_whichever_limit_is_nearest_counts(limits: dict[str, float], calls: int) -> None:
    assert await spend(budget(Topic(), **limits), amount=Sum(100, 0.01)) == calls


async def test_calls_that_are_out_count_as_what_they_may_cost() -> None:
    one = budget(Topic())
    out = [await one.reserve(CALL) for _ in range(100)]
    with pytest.raises(Withheld, match="the budget of this day is spent"):
        await one.reserve(CALL)
    out[0].settle(Sum(tokens=0))
    await one.reserve(CALL)


async def test_a_new_minute_has_its_own_budget_and_the_old_one_leaves_no_record() -> None:
    topic, now = Topic(), [START]
    one = Budget(
        BudgetSettings(tokens_per_minute=1000), ("tagbus", "a"), lambda: 1.0, TopicLedger(topic, "a"), lambda: now[0]
    )
    assert await spend(one) == 10
    now[0] += timedelta(minutes=1)
    assert await spend(one) == 10
    assert [period for period, _ in topic.records] == ["2026-11-28T10:16"]


async def test_killed_ten_times_with_calls_out_the_budget_is_never_exceeded() -> None:
    topic, sent = Topic(), 0
    for life in range(11):
        # A pod may come back under its name or under another one.
        one = budget(topic, worker=f"worker-{life % 3}")
        sent += await spend(one, calls=8)
        try:
            for _ in range(2):
                await one.reserve(CALL)
                sent += 1
        except Withheld:
            break
    sent += await spend(budget(topic, worker="last"))
    assert sent <= 100
    # The loss to kills: the calls in flight, and reservations ahead.
    assert sent >= 100 - 11 * 3


async def test_a_worker_that_ends_in_order_loses_nothing() -> None:
    topic = Topic()
    first = budget(topic)
    assert await spend(first, 33) == 33
    await first.close()
    assert await spend(budget(topic, worker="b")) == 67


async def test_a_worker_spends_the_share_of_its_partitions() -> None:
    topic = Topic()
    assert await spend(budget(topic, "a", lambda: 3 / 12)) == 25
    assert await spend(budget(topic, "b", lambda: 9 / 12)) == 75
    assert await spend(budget(topic, "c", lambda: 0.0)) == 0


async def test_moved_partitions_move_their_share_and_spending_stays_spent() -> None:
    topic, share = Topic(), {"a": 0.5, "b": 0.5}
    workers = {name: budget(topic, name, lambda name=name: share[name]) for name in share}  # type: ignore[misc]
    assert await spend(workers["a"]) == 50
    assert await spend(workers["b"], 10) == 10
    share |= {"a": 0.0, "b": 1.0}
    assert await spend(workers["a"]) == 0
    assert 38 <= await spend(workers["b"]) <= 40
    share |= {"a": 1.0, "b": 0.0}
    assert await spend(workers["a"]) == 0


@pytest.mark.parametrize("limits", [{"tokens_per_day": 100_000}, {"cost_per_day": 1.0}])
async def test_a_share_that_is_lost_while_a_reservation_is_recorded_ends_in_a_record(limits: dict[str, float]) -> None:
    share = [1.0]

    class Losing(TopicLedger):
        async def write(self, spending: Spending) -> None:
            await super().write(spending)
            share[0] = 0.0

    topic = Topic()
    settings = BudgetSettings(**limits)  # type: ignore[arg-type]
    one = Budget(settings, ("tagbus", "a"), lambda: share[0], Losing(topic, "a"), lambda: START)
    async with asyncio.timeout(60):
        await asyncio.gather(*(one.reserve(Sum(100 + 500 * number, 0.02 + 0.01 * number)) for number in range(5)))
    assert topic.writes <= 5


async def test_few_calls_write_a_record() -> None:
    topic = Topic()
    assert await spend(budget(topic, tokens_per_day=1_000_000), 1000) == 1000
    assert topic.writes <= 12


async def test_an_unlimited_amount_needs_no_record_but_is_in_it() -> None:
    topic = Topic()
    one = budget(topic, tokens_per_day=1_000_000)
    assert await spend(one, 1000, Sum(100, 0.001)) == 1000
    assert topic.writes <= 12
    await one.close()
    (record,) = topic.records.values()
    assert record.spent.cost == pytest.approx(1.0)


async def test_concurrent_calls_are_covered_by_one_record() -> None:
    topic = Topic()
    one = budget(topic, tokens_per_day=1_000_000)
    await asyncio.gather(*(one.reserve(CALL) for _ in range(50)))
    assert topic.writes == 1


async def test_what_cannot_be_recorded_is_not_spent() -> None:
    topic = Topic()
    one = budget(topic)
    topic.down = True
    with pytest.raises(Withheld, match="spending cannot be recorded: no broker answers"):
        await one.reserve(CALL)
    topic.down = False
    assert await spend(one) == 100


async def test_a_call_that_took_more_than_was_reserved_counts_in_full() -> None:
    topic = Topic()
    one = budget(topic)
    (await one.reserve(CALL)).settle(Sum(tokens=9_900))
    assert await spend(one) == 1
    await one.close()
    assert await spend(budget(topic, worker="b")) == 0


async def test_the_metric_is_the_groups_share_of_the_limit_of_tokens_or_money_whichever_is_more() -> None:
    topic = Topic()
    await budget(topic, "b", tokens_per_day=1_000, cost_per_day=1.0).reserve(Sum(100, 0.5))
    await budget(topic, tokens_per_day=1_000, cost_per_day=1.0).reserve(Sum(100, 0.1))
    assert REGISTRY.get_sample_value("tagbus_llm_budget_used_share", {"period": "day"}) == pytest.approx(0.61, abs=0.02)
