"""The budget: what a call may cost is reserved before it goes out, and settled after.

The limits are for all workers of a group. A worker may spend its share of each, the partitions of `content` that it
holds over all, and all together no more than the whole: what others have spent counts, also of workers that are gone.
Both are asked for at each call, so a rebalance counts from the next one on.

What is spent survives a worker that is killed: before a call, a record of the ledger covers it. A record reserves a
little more than is needed, so that most calls need none. What was reserved and not settled when a worker died counts as
spent, so kills never make the group spend more, only a little less.
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

# The part of a worker's limit that a record reserves beyond what is needed.
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
        """Both multiplied."""
        return Sum(self.tokens * factor, self.cost * factor)

    def within(self, limit: "Sum") -> bool:
        """Whether neither is more. A millionth of a cent is nothing: sums of costs are not exact."""
        return self.tokens <= limit.tokens and self.cost <= limit.cost + 1e-8

    def amount(self) -> Amount:
        """As records have it."""
        return Amount(tokens=max(0, round(self.tokens)), cost=max(0.0, round(self.cost, 9)))


class Ledger(Protocol):
    """Where spending is kept. Periods are days and minutes, as the contract names them."""

    def own(self, period: str) -> Sum:
        """What this worker had spent or reserved in a period when it started."""

    def others(self, period: str) -> Sum:
        """What all other workers of the group have spent or reserved in a period, as far as is known."""

    async def write(self, spending: Spending) -> None:
        """Returns when the record is kept. Raises DependencyDown where it cannot be."""

    def drop(self, period: str) -> None:
        """A period of this worker is over and counts no longer; returns at once."""


class NoLedger:
    """Spending of a process that nothing outlives."""

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
    """A period. `held`: of calls that are out. `recorded` and `reserved`: as the last record has it."""

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
        """What the last record must have reserved at least: nothing of what has no limit."""
        found = self.spent - self.recorded + self.held
        return Sum(
            found.tokens if self.limit.tokens < _ENDLESS else 0,
            found.cost if self.limit.cost < _ENDLESS else 0.0,
        )


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a call may cost, until it is settled."""

    amount: Sum
    accounts: Sequence[_Account]

    def settle(self, amount: Sum) -> None:
        """What it has cost."""
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
        """`owner`: group and worker. `share`: of the partitions, 0 to 1. `clock` gives the time in UTC."""
        self._limits = _limits(settings)
        self._owner = owner
        self._share = share
        self._ledger = ledger
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    async def reserve(self, amount: Sum) -> Reservation:
        """Reserve what a call may cost. Raises Withheld if that is more than is left, or cannot be recorded."""
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
        """Record what is spent and release what is reserved."""
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
        """What may still be reserved, calls that are out among it."""
        own, others = account.spent, self._ledger.others(account.period)
        mine, all_ = account.limit.times(self._share()) - own, account.limit - others - own
        return Sum(min(mine.tokens, all_.tokens), min(mine.cost, all_.cost))

    def _check(self, account: _Account, amount: Sum) -> None:
        if not (account.held + amount).within(self._left(account)):
            raise Withheld("budget", f"the budget of this {account.word} is spent")

    def _report(self, account: _Account) -> None:
        """Show how much of the limit the group has spent or reserved, of tokens or of money, whichever is more."""
        used, limit = self._ledger.others(account.period) + account.spent + account.held, account.limit
        shares = (used.tokens / limit.tokens, used.cost / limit.cost)
        telemetry.LLM_BUDGET.labels(period=account.word).set(max(shares))

    async def _cover(self, account: _Account) -> None:
        """Have the ledger hold what is needed."""
        while not account.needed.within(account.reserved):
            async with account.lock:
                if account.needed.within(account.reserved):
                    return
                left, ahead = self._left(account), account.limit.times(self._share() * CHUNK)
                wanted = account.held + Sum(_finite(ahead.tokens), _finite(ahead.cost))
                await self._write(account, Sum(min(wanted.tokens, left.tokens), min(wanted.cost, left.cost)))

    async def _write(self, account: _Account, reserved: Sum) -> None:
        spent, group, worker = account.spent, *self._owner
        # More calls may have been let out since it was checked what is left.
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
    """Those of the periods that have any; infinite where tokens or cost has none."""
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
    """Nothing ahead of a limit that is none."""
    return 0.0 if value == _ENDLESS else value
