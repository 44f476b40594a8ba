"""One thread for one store.

The engines are synchronous, and a batch must be stored whole before the next search sees it. A thread of its own gives
that order without a lock, and searches that queue up never occupy the threads that the rest of the process shares
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
    """Runs one call after the other, in the order in which they came; searches let the others go first."""

    def __init__(self, name: str) -> None:
        self._turns = Turns(1, name)
        self.closed = False

    async def run(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `step(*args)`. Raises RuntimeError after close()."""
        return await self._turns.run(_SOON, step, *args, **kwargs)

    async def search(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for a search of a batch: a tag that has come meanwhile does not wait for those that wait."""
        return await self._turns.run(_LATER, step, *args, **kwargs)

    def close(self) -> None:
        """Let the thread end once what was asked of it is done."""
        self.closed = True
        self._turns.close(wait=False)
