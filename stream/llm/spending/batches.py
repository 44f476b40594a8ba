"""Spending of batches: reserved from the day's budget before a batch is sent, at batch prices.

A batch takes up to a day, so the limits per minute do not apply.
"""

from typing import Final

from tagbus.stream.config import BudgetSettings
from tagbus.stream.errors import Withheld
from tagbus.stream.llm.base import Usage
from tagbus.stream.llm.spending.budget import Budget, Ledger, Reservation, Sum
from tagbus.stream.llm.spending.prices import Price

# A part of a batch is at most this share of a day's limit: whatever does not fit is left out part by part.
PART: Final = 0.1


class BatchSpending:
    """The meter of batches, with the group's whole limits: the spending of others counts."""

    def __init__(
        self, settings: BudgetSettings, owner: tuple[str, str], ledger: Ledger, price: Price, model: str | None
    ) -> None:
        daily = settings.model_copy(update={"tokens_per_minute": None, "cost_per_minute": None})
        self._settings = daily
        self._budget = Budget(daily, owner, lambda: 1.0, ledger)
        self._price = price
        self._model = model

    def cost(self, usage: Usage) -> float | None:
        """The cost of answers, in USD; None if the model has no price."""
        whole = self._price(self._model, usage)
        return None if whole is None else whole * self._settings.batch_price

    async def reserve(self, usage: Usage) -> Reservation:
        """Raises Withheld if that exceeds the rest of the day's budget, or the ledger cannot be written."""
        return await self._budget.reserve(self.sum(usage))

    def sum(self, usage: Usage) -> Sum:
        """Raises Withheld if there is a limit in money and the model has no price."""
        cost = self.cost(usage)
        if cost is None and self._settings.cost_per_day is not None:
            raise Withheld("budget", "a limit in money needs a price: set TAGBUS_BUDGET__PRICE_IN")
        return Sum(usage.tokens_in + usage.tokens_out, cost or 0.0)

    def fits(self, usage: Usage) -> bool:
        """Whether this much fits a part of a batch."""
        tokens, cost = self._settings.tokens_per_day, self._settings.cost_per_day
        most = Sum(float("inf") if tokens is None else tokens * PART, float("inf") if cost is None else cost * PART)
        return Sum(usage.tokens_in + usage.tokens_out, self.cost(usage) or 0.0).within(most)

    async def close(self) -> None:
        """Record the spending. Reservations for unanswered batches stay, and count as spent for the process that
        resumes."""
        await self._budget.close()
