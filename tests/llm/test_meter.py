"""An attempt is sent when a request slot is free, the server is not failing, its turn has come and the budget covers
it."""

from datetime import UTC, datetime
from time import monotonic
from typing import Any

import pytest

from tagbus.stream.config import BudgetSettings
from tagbus.stream.errors import DependencyDown, Overloaded, UserError, Withheld
from tagbus.stream.llm.base import Usage
from tagbus.stream.llm.spending.breaker import LONGEST_PAUSE, Breaker
from tagbus.stream.llm.spending.budget import Budget, NoLedger
from tagbus.stream.llm.spending.meter import SpendingMeter
from tagbus.stream.llm.spending.prices import price_by
from tagbus.stream.llm.spending.rate import Rate

ESTIMATE = Usage(calls=1, tokens_in=90, tokens_out=10)


def whole() -> float:
    return 1.0


def meter(**given: Any) -> SpendingMeter:
    settings = BudgetSettings(**given)
    now = datetime(2026, 11, 28, tzinfo=UTC)
    budget = Budget(settings, ("tagbus", "a"), whole, NoLedger(), lambda: now)
    return SpendingMeter(settings, budget, price_by(settings, "http://127.0.0.1:8000/v1"), whole, None)


async def fail(one: SpendingMeter, times: int, error: Exception) -> None:
    for _ in range(times):
        with pytest.raises(type(error)):
            async with one.attempt(ESTIMATE, None):
                raise error


async def test_what_an_answer_took_counts_instead_of_the_estimate() -> None:
    one = meter(tokens_per_day=200)
    for _ in range(20):
        async with one.attempt(ESTIMATE, None) as charge:
            charge.settle(Usage(calls=1, tokens_in=4, tokens_out=1))
    with pytest.raises(Withheld) as withheld:
        async with one.attempt(Usage(calls=1, tokens_in=101), None):
            pass
    assert withheld.value.reason == "budget"


async def test_an_attempt_that_failed_counts_as_the_estimate_since_the_server_may_have_worked() -> None:
    one = meter(tokens_per_day=200)
    await fail(one, 2, DependencyDown("cut"))
    with pytest.raises(Withheld, match="the budget of this day is spent"):
        async with one.attempt(ESTIMATE, None):
            pass


async def test_a_server_that_keeps_failing_is_left_alone() -> None:
    one = meter(breaker_failures=3)
    await fail(one, 3, DependencyDown("500"))
    with pytest.raises(Withheld, match="failed 3 times in a row") as withheld:
        async with one.attempt(ESTIMATE, None):
            pass
    assert withheld.value.reason == "breaker"


async def test_a_request_that_is_refused_says_nothing_of_the_server() -> None:
    one = meter(breaker_failures=1)
    await fail(one, 3, UserError("no such model"))
    async with one.attempt(ESTIMATE, None):
        pass


async def test_a_late_request_is_refused_with_the_reason() -> None:
    with pytest.raises(Withheld, match="no request could be sent before the deadline") as withheld:
        async with meter().attempt(ESTIMATE, monotonic() - 1):
            pass
    assert withheld.value.reason == "deadline"


async def test_a_server_that_says_when_to_come_back_is_not_failing() -> None:
    one = meter(breaker_failures=1)
    await fail(one, 3, Overloaded("429", retry_after=0.01))
    await fail(one, 1, Overloaded("503"))
    with pytest.raises(Withheld):
        async with one.attempt(ESTIMATE, None):
            pass


async def test_a_limit_in_money_lets_nothing_out_without_a_price() -> None:
    with pytest.raises(Withheld, match="set TAGBUS_BUDGET__PRICE_IN"):
        async with meter(cost_per_day=1.0).attempt(ESTIMATE, None):
            pass
    async with meter(cost_per_day=1.0, price_in=2.0).attempt(ESTIMATE, None):
        pass


def test_the_breaker_tries_one_request_and_goes_by_its_outcome() -> None:
    now = [0.0]
    breaker = Breaker(2, 10.0, lambda: now[0])
    for _ in range(2):
        assert not breaker.enter()
        breaker.failed()
    assert breaker.state == "open"
    with pytest.raises(Withheld, match=r"tried again in 10\.0 s"):
        breaker.enter()
    now[0] = 10.0
    assert breaker.state == "half_open"
    assert breaker.enter()
    with pytest.raises(Withheld, match="one request is being tried"):
        breaker.enter()
    breaker.failed()
    assert breaker.state == "open"
    now[0] = 20.0
    assert breaker.enter()
    breaker.unknown()
    assert breaker.enter()
    breaker.succeeded()
    assert breaker.state == "closed"
    assert not breaker.enter()


def test_a_server_that_asks_to_wait_is_left_alone_for_as_long_within_bounds() -> None:
    now = [0.0]
    breaker = Breaker(2, 10.0, lambda: now[0])
    breaker.pause(30.0)
    assert breaker.state == "open"
    with pytest.raises(Withheld, match=r"asked to wait; it is asked again in 30\.0 s"):
        breaker.enter()
    # An answer to a request that was in flight changes nothing.
    breaker.succeeded()
    now[0] = 29.0
    assert breaker.state == "open"
    now[0] = 30.0
    assert not breaker.enter()
    breaker.pause(1e9)
    now[0] += LONGEST_PAUSE
    assert not breaker.enter()


def test_failures_between_answers_do_not_open_it() -> None:
    breaker = Breaker(2, 10.0)
    for _ in range(5):
        breaker.failed()
        breaker.succeeded()
    assert breaker.state == "closed"


def test_requests_have_their_turns_at_an_even_rate_that_follows_the_share() -> None:
    now, share = [100.0], [1.0]
    rate = Rate(lambda: 60 * share[0], lambda: now[0])
    assert [rate.turn(None) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(Withheld, match="no turn before the deadline") as withheld:
        rate.turn(101.0)
    assert withheld.value.reason == "rate"
    share[0] = 0.5
    assert [rate.turn(None) for _ in range(2)] == [3, 5]
    share[0] = 0.0
    with pytest.raises(Withheld):
        rate.turn(None)
    assert Rate(lambda: None).turn(0.0) == 0


def test_a_price_of_the_settings_counts_before_any_other() -> None:
    usage = Usage(calls=1, tokens_in=1_000_000, tokens_out=500_000, cached=400_000)
    price = price_by(BudgetSettings(price_in=1.0, price_cached=0.1, price_out=4.0), "https://api.openai.com/v1")
    assert price("anything", usage) == pytest.approx(0.6 + 0.04 + 2.0)
    assert price_by(BudgetSettings(price_in=1.0), "http://x/v1")(None, usage) == pytest.approx(1.5)


def test_a_seller_s_model_has_its_price_and_a_model_of_one_s_own_has_none() -> None:
    pytest.importorskip("genai_prices")
    usage = Usage(calls=1, tokens_in=1_000_000, tokens_out=1_000_000)
    sold = price_by(BudgetSettings(), "https://api.openai.com/v1")
    assert (sold("gpt-4o-mini", usage) or 0) > (sold("gpt-4o-mini", Usage(tokens_in=1_000_000)) or 0) > 0
    assert sold("no-such-model", usage) is None
    assert price_by(BudgetSettings(), "http://127.0.0.1:8000/v1")("gpt-4o-mini", usage) is None
