"""One thread for one store.

The engines are synchronous, and a batch must be stored whole before the next search sees it. A thread of its own gives
that order without a lock, and searches that queue up never occupy the threads that the rest of the process shares
(`asyncio.to_thread` has 6 on two cores).
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Serial:
    """Runs one call after the other, in the order in which they came."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self.closed = False

    async def run(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `step(*args)`. Raises RuntimeError after close()."""
        return await asyncio.wrap_future(self._executor.submit(step, *args, **kwargs))

    def close(self) -> None:
        """Let the thread end once what was asked of it is done."""
        self.closed = True
        self._executor.shutdown(wait=False)
