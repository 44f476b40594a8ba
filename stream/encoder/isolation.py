"""Which input a model on Triton fails on: a request that fails proves nothing, because Triton merges requests."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.encoder.client import APART, ATTEMPTS, TritonClient
from tagbus.stream.encoder.endpoint import Failed, Tensors
from tagbus.stream.errors import DependencyDown
from tagbus.stream.retry import backoff

# The input that says how many tokens of a row are its own: 1, and 0 for padding.
MASK: Final = "attention_mask"


class Isolation:
    """Asks about one row of a request that failed, alone.

    One failure may be another worker's, whose request Triton merged with ours. Three of them, apart from each other,
    are the row's own, where a canary of the same shape passes after each. Both are padded to lengths that no other
    request has, so that they merge with nothing.
    """

    def __init__(self, client: TritonClient, canary: Tensors, lengths: Sequence[int]) -> None:
        """`canary`: one row, int64 [1, length], that every server has answered. `lengths`: those that requests are
        padded to, ascending; the greatest is the longest that the model takes."""
        self._client = client
        self._canary = canary
        self._lengths = lengths

    async def ask(self, row: Tensors) -> Tensors:
        """The answer for one row, int64 [1, length].

        Raises Failed where the row is at fault; DependencyDown where not even the canary is answered, and otherwise as
        `TritonClient.ask` does.
        """
        delays = backoff(APART)
        failures = 0
        for _ in range(2 * ATTEMPTS):
            length = self._lone_length(row)
            try:
                return await self._client.ask(repad(row, length))
            except Failed as error:
                failure = error
            with suppress(Failed):
                await self._client.ask(repad(self._canary, length))
                failures += 1
            if failures == ATTEMPTS:
                raise failure
            await asyncio.sleep(APART.first_seconds + next(delays))
        raise DependencyDown(f"not even a golden text is encoded: {failure}")

    def _lone_length(self, row: Tensors) -> int:
        """A length that holds the row and the canary and that no request is padded to; the greatest has no other."""
        least = max(int(np.count_nonzero(one[MASK])) for one in (row, self._canary))
        lengths = range(least, min(least + 32, self._lengths[-1]))
        return random.choice([length for length in lengths if length not in self._lengths] or self._lengths[-1:])  # noqa: S311


def repad(feed: Tensors, length: int) -> Tensors:
    """The same rows, padded with 0 to another length, which holds the longest of them."""
    return {name: _repadded(values, length) for name, values in feed.items()}


def _repadded(values: NDArray[np.generic], length: int) -> NDArray[np.generic]:
    kept = values[:, :length]
    return np.pad(kept, ((0, 0), (0, length - kept.shape[1])))
