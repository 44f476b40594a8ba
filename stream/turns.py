"""A thread pool that runs the earliest due step first: a short call overtakes earlier long ones.

A worker tags several batches concurrently and takes in a new tag between them. In order of arrival the tag would wait
for everything that the batches have queued, and the batches would all end at the same time, the first as late as the
last.
"""

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Turns:
    """A thread pool with a queue ordered by due time."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, name)
        self._lock = threading.Lock()
        # Each step's due time, its number, its future, and the step itself.
        self._waiting: list[tuple[float, int, Future[None], Callable[[], None]]] = []
        self._numbers = itertools.count()

    async def run(self, due: float, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `step(*args)`, run after all steps due earlier; steps due at the same time run in order of
        arrival.

        Raises RuntimeError after close().
        """
        results: list[T] = []
        done: Future[None] = Future()
        entry = (due, next(self._numbers), done, lambda: results.append(step(*args, **kwargs)))
        with self._lock:
            # One task per step: whichever thread runs it takes the earliest due step.
            self._pool.submit(self._next)
            heapq.heappush(self._waiting, entry)
        await asyncio.wrap_future(done)
        return results[0]

    def close(self, *, wait: bool = True) -> None:
        """End the threads once their queued steps are done, and wait for that."""
        self._pool.shutdown(wait=wait)

    def _next(self) -> None:
        with self._lock:
            _, _, done, step = heapq.heappop(self._waiting)
        if not done.set_running_or_notify_cancel():
            return
        try:
            step()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)
