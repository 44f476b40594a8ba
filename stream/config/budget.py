"""Settings of what the judge may cost, and of which contents need it."""

from pydantic import Field

from tagbus.stream.config.section import Section


class BudgetSettings(Section):
    """Limits of all workers of a group together; a worker may spend its share of the partitions of `content`."""

    tokens_per_minute: int | None = Field(None, ge=1, description="tokens of prompts and answers; unset: no limit")
    tokens_per_day: int | None = Field(None, ge=1, description="the same a day (UTC)")
    cost_per_minute: float | None = Field(None, gt=0, description="in USD; unset: no limit")
    cost_per_day: float | None = Field(None, gt=0, description="the same a day (UTC)")
    requests_per_minute: float | None = Field(None, gt=0, description="sent evenly; unset: no limit")
    price_in: float | None = Field(
        None, ge=0, description="USD of a million tokens of prompts; unset: what genai-prices knows of the server"
    )
    price_cached: float | None = Field(
        None, ge=0, description="the same of those that the server had cached; unset: price_in"
    )
    price_out: float | None = Field(None, ge=0, description="the same of tokens of answers; unset: price_in")
    breaker_failures: int = Field(5, ge=1, description="failures in a row after which nothing is sent for a while")
    breaker_seconds: float = Field(10.0, gt=0, description="how long, before one request is tried")
    cache: int = Field(10_000, ge=0, description="answers of contents that are kept for the same question")

    @property
    def limited(self) -> bool:
        """Whether there is a limit that lasts beyond a restart."""
        limits = (self.tokens_per_minute, self.tokens_per_day, self.cost_per_minute, self.cost_per_day)
        return any(limit is not None for limit in limits)
