"""Waiting for a dependency that is down."""

import random
from collections.abc import Iterator

from tagbus.stream.config import RetrySettings


def backoff(settings: RetrySettings) -> Iterator[float]:
    """Seconds to wait before each next try, for ever: full jitter under a doubling ceiling.

    Source: Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015 ("full jitter").
    """
    ceiling = settings.first_seconds
    while True:
        yield random.uniform(0, ceiling)  # noqa: S311 - spreads load, guards nothing
        ceiling = min(settings.cap_seconds, ceiling * 2)
