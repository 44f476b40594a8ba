"""Congestion control: adapt the load on a server to what it can answer within the deadline of a call.

Additive increase, multiplicative decrease (Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for
Congestion Avoidance in Computer Networks", 1989): each answered request raises the number in flight a little, one that
timed out halves it, and halves the queries in a request too. A request that timed out is retried in smaller ones, never
at its full size.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from typing import Final, TypeVar

from tagbus.stream.errors import Overloaded

T = TypeVar("T")
Call = Callable[[Sequence[int]], Awaitable[list[T]]]

# Requests in flight, initial and maximum; more than a server has cores only wait there.
START: Final = 4.0
MOST: Final = 32.0
# How many more queries a request may have after each answer: of the requests to the slow server of the tests three
# tenths timed out with 4, two tenths with 1.
STEP: Final = 1


class Congestion:
    """The window of one server, shared by its stores. Belongs to one event loop."""

    def __init__(self) -> None:
        self._window = START
        # None: as many queries as a request may have bytes.
        self._width: int | None = None
        self._in_flight = 0
        self._freed = asyncio.Event()
        # Counts decreases: requests that were in flight at one of them tell nothing new when they time out too.
        self._decreases = 0

    async def ask(self, call: Call[T], indices: Sequence[int], most: int) -> list[T]:
        """The answers of `call` for all indices, in order, in requests of up to `most`.

        Raises Overloaded if a request of one query times out, and whatever else `call` raises.
        """
        width = max(1, min(most, self._width or most))
        pieces = [
            asyncio.create_task(self._ask(call, indices[start : start + width]))
            for start in range(0, len(indices), width)
        ]
        try:
            return list(chain.from_iterable(await asyncio.gather(*pieces)))
        except BaseException:
            for piece in pieces:
                piece.cancel()
            await asyncio.gather(*pieces, return_exceptions=True)
            raise

    async def _ask(self, call: Call[T], indices: Sequence[int]) -> list[T]:
        """One request, or several smaller ones after timeouts."""
        answers: list[T] = []
        while len(answers) < len(indices):
            decreases = await self._enter()
            some = indices[len(answers) :][: self._width]
            try:
                answers += await call(some)
                self._increase(len(some))
            except Overloaded:
                self._decrease(decreases, len(some))
                if len(some) == 1:
                    raise
            finally:
                self._leave()
        return answers

    async def _enter(self) -> int:
        while self._in_flight >= int(self._window):
            self._freed.clear()
            await self._freed.wait()
        self._in_flight += 1
        return self._decreases

    def _leave(self) -> None:
        self._in_flight -= 1
        self._freed.set()

    def _increase(self, width: int) -> None:
        self._window = min(MOST, self._window + 1 / self._window)
        if self._width is not None:
            self._width = max(self._width, width + STEP)

    def _decrease(self, decreases: int, width: int) -> None:
        if decreases == self._decreases:
            self._decreases += 1
            self._window = max(1.0, self._window / 2)
        self._width = max(1, min(self._width or width, width // 2))
