"""Waiting for a dependency that is down."""

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
    """Seconds to wait before each next try, for ever: full jitter under a doubling ceiling.

    Source: Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015 ("full jitter").
    """
    ceiling = settings.first_seconds
    while True:
        yield random.uniform(0, ceiling)  # noqa: S311 - spreads load, guards nothing
        ceiling = min(settings.cap_seconds, ceiling * 2)


async def until_answered(call: Callable[[], Awaitable[T]], settings: RetrySettings, who: str) -> T:
    """What the call returns, tried until it no longer raises Retryable; `who` waits, says the log."""
    for delay in backoff(settings):
        try:
            return await call()
        except Retryable as error:
            log.warning("%s waits %.1f s: %s", who, delay, error)
            await asyncio.sleep(delay)
    raise AssertionError("backoff never ends")
