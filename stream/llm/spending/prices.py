"""What tokens cost: by the settings, otherwise by the prices that come with genai-prices.

Prices are those of the installed version of the package. Nothing is looked up: its updates are off unless a program
starts them.
"""

import logging
from collections.abc import Callable
from functools import lru_cache

from tagbus.stream.config import BudgetSettings
from tagbus.stream.llm.base import Usage

log = logging.getLogger(__name__)

MILLION = 1_000_000
# The cost in USD of what a model took; None where it has no price.
Price = Callable[[str | None, Usage], float | None]


def price_by(settings: BudgetSettings, url: str) -> Price:
    """The price of calls to a server: it counts whose server it is, as several sell the same model."""
    if settings.price_in is not None:
        return _fixed(settings.price_in, settings.price_cached, settings.price_out)

    def price(model: str | None, usage: Usage) -> float | None:
        each = None if model is None else _each(url, model)
        return None if each is None else _fixed(*each)(model, usage)

    return price


def _fixed(
    price_in: float, price_cached: float | None, price_out: float | None
) -> Callable[[str | None, Usage], float]:
    cached, out = (price_in if one is None else one for one in (price_cached, price_out))

    def price(_: str | None, usage: Usage) -> float:
        plain = usage.tokens_in - usage.cached
        return (plain * price_in + usage.cached * cached + usage.tokens_out * out) / MILLION

    return price


@lru_cache(maxsize=64)
def _each(url: str, model: str) -> tuple[float, float, float] | None:
    """USD of a million tokens: of prompts, of cached ones, of answers; None if server or model is not known.

    Prices that change with the length of a prompt count as those of a short one, and prices by the hour as now.
    """
    try:
        from genai_prices import Usage as Tokens
        from genai_prices import calc_price
    except ImportError:
        log.warning("genai-prices is not installed (extra llm): calls have no cost; TAGBUS_BUDGET__PRICE_IN gives one")
        return None

    def million(tokens: Tokens) -> float:
        # Of a thousand tokens, which is a short prompt.
        return float(calc_price(tokens, model, provider_api_url=url).total_price) * 1000

    try:
        return (
            million(Tokens(input_tokens=1000, output_tokens=0)),
            million(Tokens(input_tokens=1000, cache_read_tokens=1000, output_tokens=0)),
            million(Tokens(input_tokens=0, output_tokens=1000)),
        )
    except LookupError:
        log.info("genai-prices knows no price of this server's model; TAGBUS_BUDGET__PRICE_IN gives one")
        return None
