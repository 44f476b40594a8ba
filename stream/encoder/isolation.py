"""Find the input that a model on Triton fails on: a failed request proves nothing, because Triton merges requests."""

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

# The input that is 1 for the tokens of a row and 0 for padding.
MASK: Final = "attention_mask"


class Isolation:
    """Retries the rows of a failed request one by one.

    A single failure may be due to another worker's input in the merged batch. A row is at fault if it fails three
    times, spaced apart, and a canary of the same shape passes after each. Row and canary are padded to lengths that
    ordinary requests do not have, so that Triton merges them with no other request.
    """

    def __init__(self, client: TritonClient, canary: Tensors, lengths: Sequence[int]) -> None:
        """`canary`: a known-good row, int64 [1, length]. `lengths`: the lengths that requests are padded to, ascending;
        the last is the longest that the model takes."""
        self._client = client
        self._canary = canary
        self._lengths = lengths

    async def ask(self, row: Tensors) -> Tensors:
        """The answer for one row, int64 [1, length].

        Raises Failed if the row is at fault, DependencyDown if the canary fails too, and as `TritonClient.ask` does.
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
        """A length that fits row and canary and that ordinary requests do not have, if there is one."""
        least = max(int(np.count_nonzero(one[MASK])) for one in (row, self._canary))
        lengths = range(least, min(least + 32, self._lengths[-1]))
        return random.choice([length for length in lengths if length not in self._lengths] or self._lengths[-1:])  # noqa: S311


def repad(feed: Tensors, length: int) -> Tensors:
    """The same rows, padded with 0 to another length that fits the longest of them."""
    return {name: _repadded(values, length) for name, values in feed.items()}


def _repadded(values: NDArray[np.generic], length: int) -> NDArray[np.generic]:
    kept = values[:, :length]
    return np.pad(kept, ((0, 0), (0, length - kept.shape[1])))
