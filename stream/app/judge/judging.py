"""The judge of the settings."""

import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from tagbus.stream.config import Settings, WebSettings
from tagbus.stream.errors import UserError
from tagbus.stream.llm import Judge, component
from tagbus.stream.llm.batch.answers import Prepared
from tagbus.stream.llm.spending.budget import Budget, Ledger, NoLedger
from tagbus.stream.llm.spending.cache import Cache
from tagbus.stream.llm.spending.meter import SpendingMeter
from tagbus.stream.llm.spending.prices import price_by, price_in_words, require_price, unpriced
from tagbus.stream.memory import Memory
from tagbus.stream.recall.graph import GraphRecall
from tagbus.stream.tagger.judge import Judging, WebKnowledge
from tagbus.stream.tagger.shots import Shots

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Given:
    """What a worker shares among the judges of all its releases. `meter`: None for a meter of this process alone.
    `prepared`: answers that batches have given already."""

    meter: SpendingMeter | None = None
    prepared: Prepared | None = None


NOTHING: Final = Given()


async def judging(
    settings: Settings, memory: Memory, graph: GraphRecall, given: Given, exits: AsyncExitStack
) -> Judging | None:
    """The backend of the stage `judge`; None without a server. `exits` closes it.

    Raises UserError for settings that do not fit.
    """
    llm = settings.llm
    if llm.url is None:
        return None
    require_price(settings.budget, llm.url, llm.model)
    used = given.meter or meter_of(settings, lambda: 1.0, NoLedger())
    judge = _open(settings, used)
    exits.push_async_callback(judge.close)
    return Judging(
        judge=judge,
        version=component.version_of(settings),
        shots=Shots(memory.exemplars, graph, llm.exemplars),
        candidates=llm.candidates,
        control=settings.cascade.control,
        cache=Cache(settings.budget.cache),
        cost=used.cost,
        web=_web(settings.web, exits),
        prepared=given.prepared,
    )


def meter_of(settings: Settings, share: Callable[[], float], kept: Ledger) -> SpendingMeter:
    """The meter of the settings. `share`: share of all limits, 0 to 1; `kept`: where spending is recorded."""
    url, model = settings.llm.url or "", settings.llm.model
    if price_in_words(settings.budget, url, model) is None:
        log.warning("the language model's cost is not counted: %s", unpriced(model))
    owner = (settings.kafka.group, settings.kafka.instance)
    budget = Budget(settings.budget, owner, share, kept)
    return SpendingMeter(settings.budget, budget, price_by(settings.budget, url), share, model)


def _web(settings: WebSettings, exits: AsyncExitStack) -> WebKnowledge | None:
    if settings.url is None:
        return None
    try:
        from tagbus.stream.llm.web import knowledge
        from tagbus.stream.llm.web.endpoint import Endpoint
    except ImportError as error:
        raise UserError(
            f"TAGBUS_WEB__URL is set, but {error.name} is not installed: pip install 'tagbus[llm]'"
        ) from None
    web = knowledge.WebKnowledge(settings, Endpoint(settings, settings.url))
    exits.push_async_callback(web.close)
    return web


def _open(settings: Settings, meter: SpendingMeter) -> Judge:
    try:
        from tagbus.stream.llm.open import open_judge
    except ImportError as error:
        raise UserError(
            f"TAGBUS_LLM__URL is set, but {error.name} is not installed: pip install 'tagbus[llm]'"
        ) from None
    return open_judge(settings.llm, settings.retry, meter)
