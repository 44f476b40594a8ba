"""A dedicated thread for one store.

The engines are synchronous, and a batch must be stored whole before the next search sees it. A dedicated thread gives
that order without a lock, and queued searches never occupy the threads that the rest of the process shares
(`asyncio.to_thread` has 6 on two cores).
"""

from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from tagbus.stream.turns import Turns

P = ParamSpec("P")
T = TypeVar("T")

_SOON: Final = 0.0
_LATER: Final = 1.0


class Serial:
    """Runs one call at a time, in order of arrival; searches yield to other calls."""

    def __init__(self, name: str) -> None:
        self._turns = Turns(1, name)
        self.closed = False

    async def run(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `step(*args)`. Raises RuntimeError after close()."""
        return await self._turns.run(_SOON, step, *args, **kwargs)

    async def search(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for a search of a batch: a new tag does not wait behind queued searches."""
        return await self._turns.run(_LATER, step, *args, **kwargs)

    def close(self) -> None:
        """End the thread once its queued calls are done."""
        self.closed = True
        self._turns.close(wait=False)
