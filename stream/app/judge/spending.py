"""The spending of a worker on its judges, over all releases."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from tagbus.stream.app.judge.judging import meter_of
from tagbus.stream.config import Settings
from tagbus.stream.llm.spending import ledger
from tagbus.stream.llm.spending.budget import Ledger, NoLedger
from tagbus.stream.llm.spending.meter import SpendingMeter
from tagbus.stream.llm.spending.prices import require_price


@asynccontextmanager
async def spending(settings: Settings, share: Callable[[], float]) -> AsyncIterator[SpendingMeter | None]:
    """The meter of a worker; spending is recorded on the topic `budget` if there is a limit. None without a server.

    `share`: the worker's share of the partitions of `content`. Raises UserError for a cost limit on a model without a
    price, and as `ledger.opened` does.
    """
    async with AsyncExitStack() as exits:
        if settings.llm.url is None:
            yield None
            return
        require_price(settings.budget, settings.llm.url, settings.llm.model)
        kept: Ledger = NoLedger()
        if settings.budget.limited:
            kept = await exits.enter_async_context(ledger.opened(settings))
        meter = meter_of(settings, share, kept)
        exits.push_async_callback(meter.close)
        yield meter
