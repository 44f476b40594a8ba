"""Token prices: from the settings, else from genai-prices.

Prices are those of the installed version of the package. Nothing is downloaded: its updates are off unless a program
starts them.
"""

from collections.abc import Callable
from functools import lru_cache

from tagbus.stream.config import BudgetSettings
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.llm.base import Usage

MILLION = 1_000_000
# The cost in USD of a model's usage; None if it has no price.
Price = Callable[[str | None, Usage], float | None]


def price_by(settings: BudgetSettings, url: str) -> Price:
    """The price of calls to a server: it depends on the provider, as several sell the same model."""
    if settings.price_in is not None:
        return _fixed(settings.price_in, settings.price_cached, settings.price_out)

    def price(model: str | None, usage: Usage) -> float | None:
        each = None if model is None else _each(url, model)
        return None if each is None else _fixed(*each)(model, usage)

    return price


def price_in_words(settings: BudgetSettings, url: str, model: str | None) -> str | None:
    """USD per million tokens, in words; None if the model has no price."""
    price = price_by(settings, url)
    sent, written = price(model, Usage(tokens_in=MILLION)), price(model, Usage(tokens_out=MILLION))
    if sent is None or written is None:
        return None
    return f"USD {sent:.4g} of a million tokens of prompts, {written:.4g} of answers"


def require_price(settings: BudgetSettings, url: str, model: str | None) -> None:
    """Raises UserError for a limit in money on a model without a price: no call would ever be admitted."""
    limits = {"COST_PER_MINUTE": settings.cost_per_minute, "COST_PER_DAY": settings.cost_per_day}
    limit = next((f"TAGBUS_BUDGET__{name}={value:g}" for name, value in limits.items() if value is not None), None)
    if limit is not None and price_in_words(settings, url, model) is None:
        raise UserError(f"{limit} is a limit in money, and {unpriced(model)}")


def unpriced(model: str | None) -> str:
    """Why a model has no price, and what to do."""
    named = f"genai-prices has no price of {shorten(model)} at this server" if model else "TAGBUS_LLM__MODEL is not set"
    return f"{named}: set TAGBUS_BUDGET__PRICE_IN, USD of a million tokens (0 for a server of your own)"


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
    """USD per million tokens: of prompts, of cached ones, of answers; None if server or model is unknown.

    Prices that depend on prompt length are those of a short one; prices that depend on the hour are the current ones.
    """
    try:
        from genai_prices import Usage as Tokens
        from genai_prices import calc_price
    except ImportError:
        return None

    def million(tokens: Tokens) -> float:
        # For a thousand tokens, a short prompt.
        return float(calc_price(tokens, model, provider_api_url=url).total_price) * 1000

    try:
        return (
            million(Tokens(input_tokens=1000, output_tokens=0)),
            million(Tokens(input_tokens=1000, cache_read_tokens=1000, output_tokens=0)),
            million(Tokens(input_tokens=0, output_tokens=1000)),
        )
    except LookupError:
        return None
