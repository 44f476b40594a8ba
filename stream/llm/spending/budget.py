"""The budget: the cost of a call is reserved before it is sent, and settled after.

The limits apply to all workers of a group. A worker may spend its share of each, its partitions of `content` over all,
and all workers together no more than the whole: the spending of others counts, including that of workers that have
ended. Both are read at each call, so a rebalance takes effect with the next one.

Spending survives a killed worker: before a call, a record of the ledger covers it. A record reserves a little more than
needed, so that most calls need none. Unsettled reservations of a dead worker count as spent, so kills never make the
group spend more, only a little less.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from tagbus.stream import telemetry
from tagbus.stream.config import BudgetSettings
from tagbus.stream.contract.budget import Amount, Spending
from tagbus.stream.errors import Retryable, Withheld

# The share of a worker's limit that a record reserves beyond the need.
CHUNK: Final = 0.01
_ENDLESS: Final = float("inf")
# Characters of a day and of a minute in ISO 8601.
_DAY: Final = 10
_MINUTE: Final = 16


@dataclass(frozen=True, slots=True)
class Sum:
    """Tokens, and their cost in USD."""

    tokens: float = 0
    cost: float = 0.0

    def __add__(self, other: "Sum") -> "Sum":
        return Sum(self.tokens + other.tokens, self.cost + other.cost)

    def __sub__(self, other: "Sum") -> "Sum":
        return Sum(self.tokens - other.tokens, self.cost - other.cost)

    def times(self, factor: float) -> "Sum":
        """Both multiplied; what is unlimited stays so, also in a share of 0."""
        return Sum(*(one if one == _ENDLESS else one * factor for one in (self.tokens, self.cost)))

    def within(self, limit: "Sum") -> bool:
        """Whether neither exceeds the limit. A millionth of a cent is ignored: sums of costs are not exact."""
        return self.tokens <= limit.tokens and self.cost <= limit.cost + 1e-8

    def amount(self) -> Amount:
        """The form used in records."""
        return Amount(tokens=max(0, round(self.tokens)), cost=max(0.0, round(self.cost, 9)))


class Ledger(Protocol):
    """The store of spending. Periods are days and minutes, as the contract names them."""

    def own(self, period: str) -> Sum:
        """This worker's spending and reservations in a period at its start."""

    def others(self, period: str) -> Sum:
        """The known spending and reservations of all other workers of the group in a period."""

    async def write(self, spending: Spending) -> None:
        """Return once the record is durable. Raises DependencyDown if it cannot be written."""

    def drop(self, period: str) -> None:
        """Forget an ended period of this worker; returns immediately."""


class NoLedger:
    """The ledger of a process whose spending need not outlive it."""

    def own(self, period: str) -> Sum:  # noqa: ARG002
        """See `Ledger`."""
        return Sum()

    def others(self, period: str) -> Sum:  # noqa: ARG002
        """See `Ledger`."""
        return Sum()

    async def write(self, spending: Spending) -> None:
        """See `Ledger`."""

    def drop(self, period: str) -> None:
        """See `Ledger`."""


@dataclass(slots=True, eq=False)
class _Account:
    """The account of a period. `held`: for calls in flight. `recorded` and `reserved`: as in the last record."""

    word: str
    period: str
    limit: Sum
    spent: Sum
    recorded: Sum
    held: Sum = field(default_factory=Sum)
    reserved: Sum = field(default_factory=Sum)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def needed(self) -> Sum:
        """The least that the last record must reserve: nothing for unlimited amounts."""
        found = self.spent - self.recorded + self.held
        return Sum(
            found.tokens if self.limit.tokens < _ENDLESS else 0,
            found.cost if self.limit.cost < _ENDLESS else 0.0,
        )


@dataclass(frozen=True, slots=True)
class Reservation:
    """The reserved cost of a call, until it is settled."""

    amount: Sum
    accounts: Sequence[_Account]

    def settle(self, amount: Sum) -> None:
        """Settle with the actual cost."""
        for account in self.accounts:
            account.held -= self.amount
            account.spent += amount


class Budget:
    """The limits of a worker. One event loop."""

    def __init__(
        self,
        settings: BudgetSettings,
        owner: tuple[str, str],
        share: Callable[[], float],
        ledger: Ledger,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`owner`: group and worker. `share`: of the partitions, 0 to 1. `clock` returns the time in UTC."""
        self._limits = _limits(settings)
        self._owner = owner
        self._share = share
        self._ledger = ledger
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    async def reserve(self, amount: Sum) -> Reservation:
        """Reserve the cost of a call. Raises Withheld if that exceeds the rest, or cannot be recorded."""
        accounts = self._current()
        for account in accounts:
            self._check(account, amount)
        for account in accounts:
            account.held += amount
            self._report(account)
        reservation = Reservation(amount, accounts)
        try:
            for account in accounts:
                await self._cover(account)
        except Retryable as error:
            reservation.settle(Sum())
            raise Withheld("budget", f"spending cannot be recorded: {error}") from error
        except BaseException:
            reservation.settle(Sum())
            raise
        return reservation

    async def close(self) -> None:
        """Record the spending and release reservations."""
        for account in self._accounts.values():
            with suppress(Retryable):
                await self._write(account, account.held)

    def _current(self) -> list[_Account]:
        now = self._clock().isoformat(timespec="minutes")
        periods = {"minute": now[:_MINUTE], "day": now[:_DAY]}
        for word, limit in self._limits.items():
            account = self._accounts.get(word)
            if account is None or account.period != periods[word]:
                if account is not None and word == "minute":
                    self._ledger.drop(account.period)
                before = self._ledger.own(periods[word])
                self._accounts[word] = _Account(word, periods[word], limit, before, before)
        return list(self._accounts.values())

    def _left(self, account: _Account) -> Sum:
        """What may still be reserved, including for calls in flight."""
        own, others = account.spent, self._ledger.others(account.period)
        mine, all_ = account.limit.times(self._share()) - own, account.limit - others - own
        return Sum(min(mine.tokens, all_.tokens), min(mine.cost, all_.cost))

    def _check(self, account: _Account, amount: Sum) -> None:
        if not (account.held + amount).within(self._left(account)):
            raise Withheld("budget", f"the budget of this {account.word} is spent")

    def _report(self, account: _Account) -> None:
        """Report the share of the limit that the group has spent or reserved, of tokens or of money, whichever is
        greater."""
        used, limit = self._ledger.others(account.period) + account.spent + account.held, account.limit
        shares = (used.tokens / limit.tokens, used.cost / limit.cost)
        telemetry.LLM_BUDGET.labels(period=account.word).set(max(shares))

    async def _cover(self, account: _Account) -> None:
        """Make the ledger cover the need."""
        while not account.needed.within(account.reserved):
            async with account.lock:
                if account.needed.within(account.reserved):
                    return
                left, ahead = self._left(account), account.limit.times(self._share() * CHUNK)
                wanted = account.held + Sum(_finite(ahead.tokens), _finite(ahead.cost))
                await self._write(account, Sum(min(wanted.tokens, left.tokens), min(wanted.cost, left.cost)))

    async def _write(self, account: _Account, reserved: Sum) -> None:
        spent, group, worker = account.spent, *self._owner
        # More calls may have been admitted since the check of the rest.
        reserved = Sum(max(reserved.tokens, account.held.tokens), max(reserved.cost, account.held.cost))
        await self._ledger.write(
            Spending(
                group=group,
                period=account.period,
                worker=worker,
                spent=spent.amount(),
                reserved=reserved.amount(),
            )
        )
        account.recorded, account.reserved = spent, reserved


def _limits(settings: BudgetSettings) -> dict[str, Sum]:
    """The limits of the periods that have any; infinite where tokens or cost has none."""
    given = {
        "minute": (settings.tokens_per_minute, settings.cost_per_minute),
        "day": (settings.tokens_per_day, settings.cost_per_day),
    }
    return {
        word: Sum(_ENDLESS if tokens is None else tokens, _ENDLESS if cost is None else cost)
        for word, (tokens, cost) in given.items()
        if tokens is not None or cost is not None
    }


def _finite(value: float) -> float:
    """0 for an infinite limit."""
    return 0.0 if value == _ENDLESS else value
