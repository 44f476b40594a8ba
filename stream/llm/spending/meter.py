"""The meter: admits each attempt or gives the reason why not (breaker, rate, budget), then counts its usage."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

from tagbus.stream import telemetry
from tagbus.stream.config import BudgetSettings
from tagbus.stream.errors import Overloaded, Retryable, Withheld
from tagbus.stream.llm.base import Charge, Usage
from tagbus.stream.llm.spending.breaker import Breaker
from tagbus.stream.llm.spending.budget import Budget, Sum
from tagbus.stream.llm.spending.prices import Price
from tagbus.stream.llm.spending.rate import Rate


@dataclass(slots=True)
class _Charge:
    """One admitted attempt (`Charge`)."""

    usage: Usage | None = None

    def settle(self, usage: Usage) -> None:
        """See `Charge`."""
        self.usage = usage


class SpendingMeter:
    """Implements `Meter`. One event loop; thousands may wait."""

    def __init__(
        self, settings: BudgetSettings, budget: Budget, price: Price, share: Callable[[], float], model: str | None
    ) -> None:
        """`share`: of the partitions, 0 to 1, which is the worker's share of the rate too. `model`: for the price; None
        if none is named."""
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_seconds)
        self._rate = Rate(
            lambda: None if settings.requests_per_minute is None else settings.requests_per_minute * share()
        )
        self._budget = budget
        self._price = price
        self._costs = settings.cost_per_minute is not None or settings.cost_per_day is not None
        self._model = model

    @asynccontextmanager
    async def attempt(self, estimate: Usage, deadline: float | None) -> AsyncIterator[Charge]:
        """See `Meter`."""
        charge, trial = _Charge(), False
        try:
            # A server that asked for a short wait is waited for.
            while (pause := self._breaker.pause_left) and (deadline is None or monotonic() + pause < deadline):
                await asyncio.sleep(pause)
            trial = self._breaker.enter()
            amount = self._sum(estimate)
            if wait := self._rate.turn(deadline):
                await asyncio.sleep(wait)
            reservation = await self._budget.reserve(amount)
            if deadline is not None and monotonic() >= deadline:
                reservation.settle(Sum())
                raise Withheld("deadline", "no request could be sent before the deadline")
        except BaseException as error:
            if trial:
                self._breaker.unknown()
            raise _counted(error) from error.__cause__
        try:
            yield charge
        except Retryable as error:
            # A server that asks to retry later is not failing.
            if isinstance(error, Overloaded) and error.retry_after is not None:
                self._breaker.pause(error.retry_after)
            else:
                self._breaker.failed()
            raise
        except BaseException:
            # A refused or cancelled request says nothing about the next one.
            if trial:
                self._breaker.unknown()
            raise
        else:
            self._breaker.succeeded()
        finally:
            took = estimate if charge.usage is None else charge.usage
            reservation.settle(self._sum(took))
            telemetry.LLM_COST.inc(self.cost(took) or 0.0)

    async def close(self) -> None:
        """Record the spending."""
        await self._budget.close()

    def cost(self, usage: Usage) -> float | None:
        """The cost of calls, in USD; None if the model has no price."""
        return self._price(self._model, usage)

    def _sum(self, usage: Usage) -> Sum:
        """Raises Withheld if there is a limit in money and the model has no price."""
        cost = self.cost(usage)
        if cost is None and self._costs:
            raise Withheld(
                "budget",
                "a limit in money needs a price, and genai-prices has none for this server's model: set "
                "TAGBUS_BUDGET__PRICE_IN",
            )
        return Sum(usage.tokens_in + usage.tokens_out, cost or 0.0)


def _counted(error: BaseException) -> BaseException:
    if isinstance(error, Withheld):
        telemetry.LLM_WITHHELD.labels(reason=error.reason).inc()
    return error
