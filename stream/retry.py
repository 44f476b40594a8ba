"""Retry with backoff while a dependency is down."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from tagbus.stream.config import RetrySettings
from tagbus.stream.errors import Retryable

log = logging.getLogger(__name__)

T = TypeVar("T")


def backoff(settings: RetrySettings) -> Iterator[float]:
    """Seconds to wait before each retry, endlessly: full jitter under a doubling ceiling.

    Source: Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015 ("full jitter").
    """
    ceiling = settings.first_seconds
    while True:
        yield random.uniform(0, ceiling)  # noqa: S311 - spreads load, guards nothing
        ceiling = min(settings.cap_seconds, ceiling * 2)


async def until_answered(call: Callable[[], Awaitable[T]], settings: RetrySettings, who: str) -> T:
    """Retry the call until it no longer raises Retryable, and return its result; `who` names the caller in the log."""
    for delay in backoff(settings):
        try:
            return await call()
        except Retryable as error:
            log.warning("%s: retrying in %.1f s: %s", who, delay, error)
            await asyncio.sleep(delay)
    raise AssertionError("backoff never ends")
